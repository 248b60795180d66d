// Which language a file is in, by its name. Each is its own chunk, loaded when first needed.

import { LanguageSupport, StreamLanguage, type StreamParser } from "@codemirror/language";

type Load = () => Promise<LanguageSupport>;

const javascript = (options: { jsx?: boolean; typescript?: boolean }) => async () =>
  (await import("@codemirror/lang-javascript")).javascript(options);
const css: Load = async () => (await import("@codemirror/lang-css")).css();
const html: Load = async () => (await import("@codemirror/lang-html")).html();
const json: Load = async () => (await import("@codemirror/lang-json")).json();
const markdown: Load = async () => (await import("@codemirror/lang-markdown")).markdown();
const python: Load = async () => (await import("@codemirror/lang-python")).python();
const rust: Load = async () => (await import("@codemirror/lang-rust")).rust();
const go: Load = async () => (await import("@codemirror/lang-go")).go();
const cpp: Load = async () => (await import("@codemirror/lang-cpp")).cpp();
const java: Load = async () => (await import("@codemirror/lang-java")).java();
const php: Load = async () => (await import("@codemirror/lang-php")).php();
const sql: Load = async () => (await import("@codemirror/lang-sql")).sql();
const xml: Load = async () => (await import("@codemirror/lang-xml")).xml();
const yaml: Load = async () => (await import("@codemirror/lang-yaml")).yaml();
const shell = stream(async () => (await import("@codemirror/legacy-modes/mode/shell")).shell);
const toml = stream(async () => (await import("@codemirror/legacy-modes/mode/toml")).toml);
const docker = stream(async () => (await import("@codemirror/legacy-modes/mode/dockerfile")).dockerFile);
const ruby = stream(async () => (await import("@codemirror/legacy-modes/mode/ruby")).ruby);
const lua = stream(async () => (await import("@codemirror/legacy-modes/mode/lua")).lua);
const diff = stream(async () => (await import("@codemirror/legacy-modes/mode/diff")).diff);
const properties = stream(async () => (await import("@codemirror/legacy-modes/mode/properties")).properties);
const cmake = stream(async () => (await import("@codemirror/legacy-modes/mode/cmake")).cmake);

// Maps, because a name is a stranger's: `constructor` is one too.
const BY_EXTENSION = new Map<string, Load>(Object.entries({
  js: javascript({ jsx: true }),
  mjs: javascript({}),
  cjs: javascript({}),
  jsx: javascript({ jsx: true }),
  ts: javascript({ typescript: true }),
  mts: javascript({ typescript: true }),
  cts: javascript({ typescript: true }),
  tsx: javascript({ jsx: true, typescript: true }),
  css,
  scss: css,
  html,
  htm: html,
  svelte: html,
  vue: html,
  json,
  jsonc: json,
  lock: toml,
  md: markdown,
  markdown,
  py: python,
  pyi: python,
  rs: rust,
  go,
  c: cpp,
  h: cpp,
  cc: cpp,
  cpp,
  cxx: cpp,
  hpp: cpp,
  java,
  php,
  sql,
  xml,
  svg: xml,
  yaml,
  yml: yaml,
  sh: shell,
  bash: shell,
  zsh: shell,
  profile: shell,
  bashrc: shell,
  toml,
  rb: ruby,
  lua,
  diff,
  patch: diff,
  ini: properties,
  cfg: properties,
  conf: properties,
  env: properties,
  properties,
  cmake,
}));

const BY_NAME = new Map<string, Load>(Object.entries({
  dockerfile: docker,
  containerfile: docker,
  gemfile: ruby,
  rakefile: ruby,
  "cmakelists.txt": cmake,
}));

/** Returns how to load the language of a file, or null for plain text. */
export function languageOf(name: string): Load | null {
  return BY_NAME.get(name.toLowerCase()) ?? BY_EXTENSION.get(extensionOf(name)) ?? null;
}

function extensionOf(name: string): string {
  const dot = name.lastIndexOf(".");
  return dot < 0 ? "" : name.slice(dot + 1).toLowerCase();
}

function stream(load: () => Promise<StreamParser<unknown>>): Load {
  return async () => new LanguageSupport(StreamLanguage.define(await load()));
}
