// `.editorconfig`: what the files of a project say about indentation and the end of a file. The rest of what such files may
// say is for other programs. The format is that of editorconfig.org, 0.17; a file is a stranger's, so nothing of it runs for
// long: its size, the sections and the length of a pattern are bounded. That a path's folders stand between slashes is all
// that is known here of paths.

import { WORKSPACE } from "../lib/ipc/commands";
import type { Indentation } from "./indentation";

export interface Wishes {
  /** What one step is, and how wide a tab; null where nothing is said. */
  indentation: Indentation | null;
  /** Whether the last line is to end like the others. */
  finalNewline: boolean;
}

export interface EditorConfig {
  /** The folder that it is in. */
  folder: string;
  content: string;
}

interface Section {
  pattern: string;
  properties: Map<string, string>;
}

export const NAME = ".editorconfig";
const MOST_FOLDERS = 40;
const MOST_CHARACTERS = 100_000;
const MOST_SECTIONS = 500;
const LONGEST_PATTERN = 200;
/** Characters of `{-999..-999}`. */
const LONGEST_RANGE = 12;
const WIDEST = 16;

/** Whether no file of the folders above counts. */
export function isRoot(content: string): boolean {
  return parse(content).root;
}

/** Returns what the files say about a path, the nearest first; a nearer one is stronger, and a later section of one. */
export function wishesOf(path: string, configs: readonly EditorConfig[]): Wishes {
  const properties = new Map<string, string>();
  for (const { folder, content } of [...configs].reverse()) {
    if (!path.startsWith(`${folder}/`)) continue;
    const below = path.slice(folder.length + 1);
    for (const section of parse(content).sections) {
      if (!matches(section.pattern, below)) continue;
      for (const [name, value] of section.properties) properties.set(name, value);
    }
  }
  return { indentation: indentationOf(properties), finalNewline: properties.get("insert_final_newline") === "true" };
}

/** Reads the files that count for a path. `read` returns null where there is none. */
export async function configsOf(path: string, read: (path: string) => Promise<string | null>): Promise<EditorConfig[]> {
  const configs: EditorConfig[] = [];
  let folder = path;
  for (let depth = 0; depth < MOST_FOLDERS && folder !== WORKSPACE && folder.startsWith(`${WORKSPACE}/`); depth += 1) {
    folder = folder.slice(0, folder.lastIndexOf("/"));
    const content = await read(`${folder}/${NAME}`);
    if (content === null) continue;
    configs.push({ folder, content });
    if (isRoot(content)) break;
  }
  return configs;
}

function indentationOf(properties: ReadonlyMap<string, string>): Indentation | null {
  const style = properties.get("indent_style");
  const size = properties.get("indent_size");
  const tabWidth = width(properties.get("tab_width"));
  const step = size === "tab" ? tabWidth : width(size);
  if (style === "tab" || (style === undefined && size === "tab")) return { unit: "\t", tabWidth: tabWidth ?? step ?? 4 };
  if (style !== "space" && step === null) return null;
  return { unit: " ".repeat(step ?? tabWidth ?? 4), tabWidth: tabWidth ?? step ?? 4 };
}

function width(value: string | undefined): number | null {
  return value !== undefined && /^[1-9]\d?$/.test(value) && Number(value) <= WIDEST ? Number(value) : null;
}

function parse(content: string): { root: boolean; sections: Section[] } {
  const sections: Section[] = [];
  let root = false;
  let section: Section | null = null;
  const text = content.slice(0, MOST_CHARACTERS).replace(/^\ufeff/, "");
  for (const line of text.split(/\r\n?|\n/)) {
    const words = line.trim();
    if (words === "" || words.startsWith("#") || words.startsWith(";")) continue;
    if (words.startsWith("[") && words.endsWith("]")) {
      if (sections.length === MOST_SECTIONS) break;
      section = { pattern: words.slice(1, -1), properties: new Map() };
      sections.push(section);
      continue;
    }
    const at = words.indexOf("=");
    if (at < 0) continue;
    const name = words.slice(0, at).trim().toLowerCase();
    const value = words.slice(at + 1).trim().toLowerCase();
    if (section !== null) section.properties.set(name, value);
    else if (name === "root") root = value === "true";
  }
  return { root, sections };
}

function matches(pattern: string, below: string): boolean {
  if (pattern.length > LONGEST_PATTERN) return false;
  const words = pattern.startsWith("/") ? pattern.slice(1) : pattern;
  const [steps] = read(words, 0, false, bracesOf(words));
  // A pattern without a slash is about names in every folder.
  const subjects = pattern.includes("/") ? [below] : [below.slice(below.lastIndexOf("/") + 1)];
  return subjects.some((subject) => ends(steps, subject, new Set([0])).has(subject.length));
}

type Step =
  | { kind: "one"; fits: (character: string) => boolean }
  /** Any run of characters; without slashes unless `deep`. */
  | { kind: "run"; deep: boolean }
  | { kind: "choice"; choices: Step[][] };

/** Reads a pattern from a place up to its end, or to that of a choice; returns its steps and where it ended. */
function read(pattern: string, from: number, inChoice: boolean, braces: ReadonlySet<number>): [Step[], number] {
  const steps: Step[] = [];
  let at = from;
  while (at < pattern.length) {
    const character = pattern.charAt(at);
    if (inChoice && (character === "," || character === "}")) break;
    if (character === "\\" && at + 1 < pattern.length) {
      const literal = pattern.charAt(at + 1);
      steps.push({ kind: "one", fits: (other) => other === literal });
      at += 2;
    } else if (character === "*") {
      const deep = pattern.charAt(at + 1) === "*";
      // `a/**/b` is `a/b` too.
      const none = deep && (at === 0 || pattern.charAt(at - 1) === "/") && pattern.charAt(at + 2) === "/";
      if (none) steps.push({ kind: "choice", choices: [[], [{ kind: "run", deep: true }, { kind: "one", fits: (other) => other === "/" }]] });
      else steps.push({ kind: "run", deep });
      at += none ? 3 : deep ? 2 : 1;
    } else if (character === "?") {
      steps.push({ kind: "one", fits: (other) => other !== "/" });
      at += 1;
    } else if (character === "[" && pattern.indexOf("]", at + 2) > 0) {
      const end = pattern.indexOf("]", at + 2);
      steps.push({ kind: "one", fits: setOf(pattern.slice(at + 1, end)) });
      at = end + 1;
    } else {
      const choice = character === "{" ? choiceAt(pattern, at, braces) : null;
      if (choice) {
        steps.push(choice.step);
        at = choice.end;
      } else {
        steps.push({ kind: "one", fits: (other) => other === character });
        at += 1;
      }
    }
  }
  return [steps, at];
}

/** Reads `{a,b}` or `{1..9}`; null where it is neither, and the brace stands for itself. */
function choiceAt(pattern: string, from: number, braces: ReadonlySet<number>): { step: Step; end: number } | null {
  const range = /^\{([+-]?\d{1,3})\.\.([+-]?\d{1,3})\}/.exec(pattern.slice(from, from + LONGEST_RANGE));
  if (range) {
    const [low = 0, high = 0] = [Number(range[1]), Number(range[2])].sort((a, b) => a - b);
    const choices = Array.from({ length: high - low + 1 }, (_, index) => lettersOf(String(low + index)));
    return { step: { kind: "choice", choices }, end: from + range[0].length };
  }
  if (!braces.has(from)) return null;
  const choices: Step[][] = [];
  let at = from;
  do {
    const [steps, end] = read(pattern, at + 1, true, braces);
    choices.push(steps);
    at = end;
  } while (pattern.charAt(at) === ",");
  return { step: { kind: "choice", choices }, end: at + 1 };
}

/** Returns where braces open that close again, with a comma in between: the others stand for themselves. */
function bracesOf(pattern: string): Set<number> {
  const braces = new Set<number>();
  const open: Array<{ at: number; comma: boolean }> = [];
  for (let at = 0; at < pattern.length; at += 1) {
    const innermost = open.at(-1);
    switch (pattern.charAt(at)) {
      case "\\":
        at += 1;
        break;
      case "{":
        open.push({ at, comma: false });
        break;
      case ",":
        if (innermost) innermost.comma = true;
        break;
      case "}":
        open.pop();
        if (innermost?.comma) braces.add(innermost.at);
        break;
      default:
    }
  }
  return braces;
}

function lettersOf(text: string): Step[] {
  return [...text].map((letter) => ({ kind: "one", fits: (other) => other === letter }));
}

function setOf(text: string): (character: string) => boolean {
  const not = text.startsWith("!");
  const letters = not ? text.slice(1) : text;
  const fits = (character: string): boolean => {
    for (let at = 0; at < letters.length; at += 1) {
      const low = letters.charAt(at);
      const isRange = letters.charAt(at + 1) === "-" && at + 2 < letters.length;
      if (isRange ? low <= character && character <= letters.charAt(at + 2) : low === character) return true;
      if (isRange) at += 2;
    }
    return false;
  };
  return (character) => character !== "/" && fits(character) !== not;
}

/** Returns where steps may end that begin at these places: all ways at once, so that no pattern takes long. */
function ends(steps: readonly Step[], subject: string, from: ReadonlySet<number>): Set<number> {
  let places = new Set(from);
  for (const step of steps) {
    const next = new Set<number>();
    for (const place of places) {
      switch (step.kind) {
        case "one":
          if (place < subject.length && step.fits(subject.charAt(place))) next.add(place + 1);
          break;
        case "run":
          for (let end = place; ; end += 1) {
            if (next.has(end)) break;
            next.add(end);
            if (end === subject.length || (!step.deep && subject.charAt(end) === "/")) break;
          }
          break;
        case "choice":
          break;
        default:
          step satisfies never;
      }
    }
    if (step.kind === "choice") {
      for (const choice of step.choices) for (const end of ends(choice, subject, places)) next.add(end);
    }
    places = next;
  }
  return places;
}
