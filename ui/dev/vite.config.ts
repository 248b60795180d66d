// Serves the window with an invented backend, to look at its states in an ordinary browser.

import { fileURLToPath } from "node:url";

import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

export default defineConfig({
  root: fileURLToPath(new URL(".", import.meta.url)),
  plugins: [svelte({ configFile: fileURLToPath(new URL("../svelte.config.js", import.meta.url)) })],
  clearScreen: false,
  cacheDir: fileURLToPath(new URL("../node_modules/.vite-harness", import.meta.url)),
  server: { port: 1421, strictPort: true, host: "127.0.0.1", fs: { allow: [".."] } },
});
