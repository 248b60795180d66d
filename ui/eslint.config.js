import js from "@eslint/js";
import svelte from "eslint-plugin-svelte";
import globals from "globals";
import ts from "typescript-eslint";

import svelteConfig from "./svelte.config.js";

const FEATURES = ["session", "files", "editor", "terminal", "settings", "engine", "figures"];

const tauri = {
  group: ["@tauri-apps/*"],
  message: "Only src/lib/ipc talks to the Rust side.",
};

/** Features do not know each other; App.svelte and Workbench.svelte bring them together. */
const features = FEATURES.map((feature) => ({
  files: [`src/${feature}/**/*.{ts,svelte}`],
  rules: {
    "no-restricted-imports": [
      "error",
      {
        patterns: [
          tauri,
          {
            group: FEATURES.filter((other) => other !== feature).flatMap((other) => [
              `../${other}`,
              `../${other}/*`,
              `**/src/${other}/*`,
            ]),
            message: "Features never import each other.",
          },
        ],
      },
    ],
  },
}));

export default ts.config(
  { ignores: ["dist/", "node_modules/", "src/bindings/"] },
  js.configs.recommended,
  ...ts.configs.strict,
  ...svelte.configs.recommended,
  {
    languageOptions: { globals: { ...globals.browser } },
    rules: {
      "@typescript-eslint/no-explicit-any": "error",
      "@typescript-eslint/switch-exhaustiveness-check": "off",
      "@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_" }],
      "@typescript-eslint/no-empty-function": "off",
      "no-restricted-imports": ["error", { patterns: [tauri] }],
      "@typescript-eslint/consistent-type-assertions": ["error", { assertionStyle: "never" }],
      eqeqeq: "error",
      // Sets and maps that nothing renders from need not be reactive; those that are rendered are.
      "svelte/prefer-svelte-reactivity": "off",
    },
  },
  {
    files: ["**/*.svelte", "**/*.svelte.ts"],
    languageOptions: {
      parserOptions: { parser: ts.parser, extraFileExtensions: [".svelte"], svelteConfig },
    },
  },
  ...features,
  {
    files: ["src/lib/**/*.{ts,svelte}"],
    ignores: ["src/lib/ipc/**"],
    rules: {
      "no-restricted-imports": [
        "error",
        {
          patterns: [
            tauri,
            {
              group: FEATURES.flatMap((feature) => [`../${feature}/*`, `../../${feature}/*`]),
              message: "What is shared does not know the features.",
            },
          ],
        },
      ],
    },
  },
  {
    files: ["src/lib/ipc/**/*.ts", "**/*.test.ts", "test/**", "dev/**"],
    rules: {
      "no-restricted-imports": "off",
      "@typescript-eslint/consistent-type-assertions": "off",
      "@typescript-eslint/no-non-null-assertion": "off",
    },
  },
  {
    files: ["*.config.{js,ts}", "dev/**/*.{js,ts,mjs}"],
    languageOptions: { globals: { ...globals.node } },
  },
);
