// The keys of the editor: CodeMirror's own, and those that users of other editors expect beside them.

import { defaultKeymap, historyKeymap, indentWithTab } from "@codemirror/commands";
import { foldKeymap } from "@codemirror/language";
import { openSearchPanel, searchKeymap } from "@codemirror/search";
import type { EditorView, KeyBinding } from "@codemirror/view";

export const readingKeys: readonly KeyBinding[] = [...searchKeymap, ...foldKeymap, ...defaultKeymap];

/** Tab indents; after Escape it leaves the editor, so that the keyboard is not held in it. */
export const editingKeys: readonly KeyBinding[] = [
  { key: "Mod-h", mac: "Mod-Alt-f", run: openReplace },
  ...searchKeymap,
  ...historyKeymap,
  ...foldKeymap,
  indentWithTab,
  ...defaultKeymap,
];

function openReplace(view: EditorView): boolean {
  openSearchPanel(view);
  const field = view.dom.querySelector<HTMLInputElement>(".cm-search [name=replace]");
  field?.select();
  return true;
}
