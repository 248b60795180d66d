// One text as it is edited: its state is kept while no view shows it, with undo, cursor and place. What is on the disk
// and what happens to that is `open-files.svelte.ts`.

import { history } from "@codemirror/commands";
import { bracketMatching, codeFolding, foldGutter, indentOnInput, indentUnit } from "@codemirror/language";
import { diff, MergeView } from "@codemirror/merge";
import { highlightSelectionMatches, search } from "@codemirror/search";
import {
  Compartment,
  EditorSelection,
  EditorState,
  type Extension,
  type StateEffect,
  type Text,
  Transaction,
  type TransactionSpec,
} from "@codemirror/state";
import {
  crosshairCursor,
  drawSelection,
  dropCursor,
  EditorView,
  highlightActiveLine,
  highlightActiveLineGutter,
  highlightSpecialChars,
  keymap,
  lineNumbers,
  rectangularSelection,
} from "@codemirror/view";

import { visibleName } from "../lib/names";
import { appearance } from "./appearance";
import { type Indentation, indentationOf } from "./indentation";
import { editingKeys, readingKeys } from "./keys";
import { languageOf } from "./languages";
import { drawable, isDeep } from "./tame";
import { endingsOf, type Form, keepEndings, type Parts, putTogether, takeApart } from "./text-form";

/** Differences are looked for with less care where that would hold the page. */
const CAREFUL = { scanLimit: 2_000, timeout: 150 };

const language = new Compartment();
const steps = new Compartment();

export interface Options {
  name: string;
  /** The whole text as the file has it, or its beginning for one that is for reading only. */
  content: string;
  readOnly: boolean;
  /** Hears that the text is another, or was saved. */
  onchange: () => void;
}

/** Where in a text something is: a line counted from 1, and UTF-16 units on it. */
export interface Place {
  line: number;
  column: number;
  length: number;
}

/** A text at one moment: as it is edited, and as the file has it. */
export interface Snapshot {
  doc: Text;
  content: string;
}

export class EditedText {
  readonly readOnly: boolean;
  /** Whether it is another text than the one that is saved. */
  unsaved = $state(false);

  readonly #name: string;
  readonly #onchange: () => void;
  #form: Form;
  #state: EditorState;
  /** What the file is known to have; null when that is not known. */
  #saved: Snapshot | null;
  #view: EditorView | null = null;
  #place: StateEffect<unknown> | undefined;
  #language: Extension = NONE;
  /** Whether the next view is to have the focus. */
  #wantsFocus = false;

  constructor({ name, content, readOnly, onchange }: Options) {
    const parts = takeApart(readOnly ? drawable(content) : content);
    this.readOnly = readOnly;
    this.#name = name;
    this.#onchange = onchange;
    this.#form = parts.form;
    this.#saved = { doc: parts.doc, content };
    this.#state = EditorState.create({ doc: parts.doc, extensions: this.#extensions(parts) });
    this.#colour();
  }

  get content(): string {
    return putTogether(this.#state, this.#form);
  }

  get doc(): Text {
    return this.#state.doc;
  }

  snapshot(): Snapshot {
    return { doc: this.doc, content: this.content };
  }

  /** Shows the text in an element; returns what ends that. */
  show(parent: HTMLElement): () => void {
    const view = new EditorView({
      parent,
      state: this.#state,
      scrollTo: this.#place,
      dispatchTransactions: (transactions, shown) => {
        shown.update(transactions);
        this.#take(shown.state);
      },
    });
    // When the view goes, its element is out of the page already and has lost its place.
    const follow = () => (this.#place = view.scrollSnapshot());
    view.scrollDOM.addEventListener("scroll", follow, { passive: true });
    this.#view = view;
    if (this.#wantsFocus) {
      this.#wantsFocus = false;
      view.focus();
    }
    return () => {
      view.scrollDOM.removeEventListener("scroll", follow);
      if (this.#view === view) this.#view = null;
      view.destroy();
    };
  }

  /** Shows the text beside another one, in which nothing can be changed; returns what ends that. */
  compare(parent: HTMLElement, other: string): () => void {
    const theirs = takeApart(drawable(other));
    const looks = [lineNumbers(), highlightSpecialChars(), drawSelection(), this.#language, appearance];
    const merge = new MergeView({
      parent,
      a: {
        doc: theirs.doc,
        extensions: [looks, EditorState.readOnly.of(true), labelled("On disk", true), keymap.of(readingKeys)],
      },
      b: {
        doc: this.#state.doc,
        extensions: [
          looks,
          history(),
          labelled(`${visibleName(this.#name)}, yours`, false),
          EditorView.clipboardInputFilter.of(drawable),
          steps.of(steps.get(this.#state) ?? []),
          keymap.of(editingKeys),
          EditorView.updateListener.of((update) => {
            if (update.docChanged) this.#apply({ changes: update.changes, userEvent: "input.compare" });
          }),
        ],
      },
      revertControls: "a-to-b",
      renderRevertControl: takeOver,
      collapseUnchanged: { margin: 3, minSize: 6 },
      diffConfig: CAREFUL,
    });
    return () => merge.destroy();
  }

  /** Makes `content` the text, as one step that can be undone; what is saved stays as it was. */
  replace(content: string): void {
    this.#become(takeApart(content), { userEvent: "input.replace" });
  }

  /** Takes the text that the file has by now. The cursor stays where it was in what is the same. */
  reload(content: string, undoable: boolean): void {
    const parts = takeApart(this.readOnly ? drawable(content) : content);
    this.#saved = { doc: parts.doc, content };
    this.#become(parts, undoable ? { userEvent: "input.replace" } : { annotations: Transaction.addToHistory.of(false) });
    this.#colour();
  }

  /** Takes note of what the file has; null when that is not known. */
  markSaved(saved: Snapshot | null): void {
    this.#saved = saved;
    this.#look();
  }

  /** Whether this is what the file had before it was edited here. */
  wasSavedAs(content: string): boolean {
    return this.#saved?.content === content;
  }

  /** Selects what is at a place, as far as there is such a place, and brings it into sight. */
  goTo({ line, column, length }: Place): void {
    const at = this.doc.line(Math.min(Math.max(line, 1), this.doc.lines));
    const anchor = Math.min(at.from + column, at.to);
    const head = Math.min(anchor + length, at.to);
    const sight = EditorView.scrollIntoView(EditorSelection.range(anchor, head), { y: "center" });
    // A view that is made later begins there.
    this.#place = sight;
    this.#apply({ selection: { anchor, head }, ...(this.#view ? { effects: sight } : {}) });
  }

  /** Gives the text the focus, as soon as it is shown. */
  focus(): void {
    if (this.#view) this.#view.focus();
    else this.#wantsFocus = true;
  }

  /** Puts something behind the text, by one step that can be undone. */
  append(text: string): void {
    this.#apply({ changes: { from: this.doc.length, insert: text }, userEvent: "input.append" });
  }

  indent(indentation: Indentation): void {
    this.#apply({ effects: steps.reconfigure(stepsOf(indentation)) });
  }

  #become(parts: Parts, spec: TransactionSpec): void {
    const before = this.#state.doc.toString();
    const after = parts.doc.toString();
    const changes = diff(before, after, CAREFUL).map(({ fromA, toA, fromB, toB }) => ({ from: fromA, to: toA, insert: after.slice(fromB, toB) }));
    this.#form = parts.form;
    this.#apply({ changes, effects: endingsOf(parts), ...spec });
  }

  #apply(spec: TransactionSpec): void {
    if (this.#view) this.#view.dispatch(spec);
    else this.#take(this.#state.update(spec).state);
  }

  #take(state: EditorState): void {
    const changed = state.doc !== this.#state.doc;
    this.#state = state;
    if (changed) this.#look();
  }

  #look(): void {
    this.unsaved = !this.readOnly && (this.#saved === null || !this.#state.doc.eq(this.#saved.doc));
    this.#onchange();
  }

  #colour(): void {
    const load = languageOf(this.#name);
    const { doc } = this.#state;
    const set = (support: Extension) => {
      this.#language = support;
      this.#apply({ effects: language.reconfigure(support) });
    };
    if (load === null || isDeep(doc.toString())) {
      if (this.#language !== NONE) set(NONE);
    } else {
      void load().then((support) => {
        if (this.#state.doc === doc || !isDeep(this.#state.doc.toString())) set(support);
      });
    }
  }

  #extensions(parts: Parts): Extension {
    return [
      lineNumbers(),
      codeFolding(),
      foldGutter(),
      highlightSpecialChars(),
      highlightActiveLine(),
      highlightActiveLineGutter(),
      highlightSelectionMatches(),
      bracketMatching(),
      drawSelection(),
      EditorState.allowMultipleSelections.of(true),
      rectangularSelection(),
      crosshairCursor(),
      search({ top: true }),
      phrases,
      keepEndings(parts),
      this.readOnly ? [EditorState.readOnly.of(true), keymap.of(readingKeys)] : editable,
      labelled(visibleName(this.#name), this.readOnly),
      steps.of(stepsOf(indentationOf(parts.doc))),
      language.of(NONE),
      appearance,
    ];
  }
}

const NONE: Extension = [];

const editable: Extension = [
  history(),
  indentOnInput(),
  dropCursor(),
  // What is pasted may be a stranger's too.
  EditorView.clipboardInputFilter.of(drawable),
  keymap.of(editingKeys),
];

/** What the panel for search says. */
const phrases = EditorState.phrases.of({
  next: "Next",
  previous: "Previous",
  all: "Select all",
  replace: "Replace",
  "replace all": "Replace all",
  "match case": "Match case",
  regexp: "Regular expression",
  "by word": "Whole words",
});

function labelled(label: string, readOnly: boolean): Extension {
  return EditorView.contentAttributes.of({
    "aria-label": label,
    tabindex: "0",
    ...(readOnly ? { "aria-readonly": "true" } : {}),
  });
}

function stepsOf({ unit, tabWidth }: Indentation): Extension {
  return [indentUnit.of(unit), EditorState.tabSize.of(tabWidth)];
}

function takeOver(): HTMLElement {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "→";
  button.title = "Take this from the disk";
  button.setAttribute("aria-label", button.title);
  // The library hears the mouse only.
  button.addEventListener("click", (event) => {
    if (event.detail === 0) button.dispatchEvent(new MouseEvent("mousedown", { bubbles: true }));
  });
  return button;
}
