// How code looks, from the design tokens: the theme follows the system without a rebuild.

import { HighlightStyle, syntaxHighlighting } from "@codemirror/language";
import { EditorView } from "@codemirror/view";
import { tags } from "@lezer/highlight";

const theme = EditorView.theme({
  "&": {
    height: "100%",
    backgroundColor: "var(--surface-code)",
    color: "var(--text)",
    fontSize: "var(--size)",
  },
  "&.cm-focused": { outline: "none" },
  ".cm-scroller": { fontFamily: "var(--font-code)", lineHeight: "1.55", fontVariantLigatures: "none" },
  ".cm-content": { padding: "var(--space-2) 0", caretColor: "var(--accent)" },
  ".cm-line": { padding: "0 var(--space-4) 0 var(--space-2)" },
  ".cm-gutters": {
    border: "none",
    backgroundColor: "var(--surface-code)",
    color: "var(--text-faint)",
  },
  ".cm-lineNumbers .cm-gutterElement": { minWidth: "var(--control)", padding: "0 var(--space-2)" },
  "&.cm-focused .cm-activeLine": { backgroundColor: "var(--surface-hover)" },
  ".cm-activeLine, .cm-activeLineGutter": { backgroundColor: "transparent" },
  "&.cm-focused .cm-activeLineGutter": { color: "var(--text)" },
  ".cm-cursor": { borderLeftColor: "var(--accent)" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": {
    backgroundColor: "var(--selection)",
  },
  ".cm-searchMatch": { backgroundColor: "var(--warn-soft)", outline: "var(--hair) solid var(--warn)" },
  ".cm-searchMatch-selected": { backgroundColor: "var(--selection)" },
  ".cm-selectionMatch": { backgroundColor: "var(--surface-active)" },
  ".cm-foldPlaceholder": { border: "none", backgroundColor: "var(--surface-hover)", color: "var(--text-muted)" },
  ".cm-specialChar": { color: "var(--bad)" },
  ".cm-panels": { border: "none", backgroundColor: "var(--surface-1)", color: "var(--text)" },
  ".cm-panels.cm-panels-top": { borderBottom: "var(--hair) solid var(--line)" },
  ".cm-panel.cm-search": { padding: "var(--space-2)", fontFamily: "var(--font)" },
  ".cm-panel.cm-search label": { fontSize: "var(--size-note)" },
  "&.cm-merge-a .cm-changedLine": { backgroundColor: "var(--bad-soft)" },
  "&.cm-merge-b .cm-changedLine": { backgroundColor: "var(--good-soft)" },
  "&.cm-merge-a .cm-changedText": { background: "linear-gradient(var(--bad), var(--bad)) bottom/100% var(--ring) no-repeat" },
  "&.cm-merge-b .cm-changedText": { background: "linear-gradient(var(--good), var(--good)) bottom/100% var(--ring) no-repeat" },
  "&.cm-merge-a .cm-changedLineGutter": { background: "var(--bad)" },
  "&.cm-merge-b .cm-changedLineGutter": { background: "var(--good)" },
  ".cm-collapsedLines": { color: "var(--text-muted)", background: "var(--surface-1)", fontFamily: "var(--font)" },
  // Signs that the fonts do not have.
  ".cm-collapsedLines:before, .cm-collapsedLines:after": { content: "none" },
  ".cm-textfield": {
    border: "var(--hair) solid var(--line-strong)",
    borderRadius: "var(--radius)",
    backgroundColor: "var(--surface-2)",
    fontSize: "var(--size-note)",
  },
  ".cm-button": {
    border: "var(--hair) solid var(--line-strong)",
    borderRadius: "var(--radius)",
    backgroundColor: "var(--surface-2)",
    backgroundImage: "none",
    fontSize: "var(--size-note)",
  },
});

const highlighting = HighlightStyle.define([
  { tag: [tags.keyword, tags.modifier, tags.operatorKeyword, tags.self], color: "var(--code-keyword)" },
  { tag: [tags.string, tags.special(tags.string), tags.regexp], color: "var(--code-string)" },
  { tag: [tags.number, tags.bool, tags.null, tags.atom, tags.escape], color: "var(--code-number)" },
  { tag: [tags.comment, tags.meta, tags.processingInstruction], color: "var(--code-comment)" },
  { tag: [tags.function(tags.variableName), tags.function(tags.propertyName), tags.macroName], color: "var(--code-function)" },
  { tag: [tags.typeName, tags.className, tags.namespace, tags.tagName], color: "var(--code-type)" },
  { tag: [tags.propertyName, tags.attributeName, tags.definition(tags.variableName)], color: "var(--code-name)" },
  { tag: tags.heading, color: "var(--code-function)", fontWeight: "600" },
  { tag: tags.strong, fontWeight: "600" },
  { tag: tags.emphasis, fontStyle: "italic" },
  { tag: [tags.link, tags.url], color: "var(--code-function)", textDecoration: "underline" },
  { tag: tags.inserted, color: "var(--good)" },
  { tag: tags.deleted, color: "var(--bad)" },
  { tag: tags.invalid, color: "var(--bad)" },
]);

export const appearance = [theme, syntaxHighlighting(highlighting)];
