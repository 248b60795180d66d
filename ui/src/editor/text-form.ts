// How a file writes its text: a byte order mark, and how its lines end. The editor sees lines; this is what it takes to
// write them back so that a file differs from what it was only where it was edited.

import { invertedEffects } from "@codemirror/commands";
import { type ChangeDesc, type EditorState, type Extension, Range, RangeSet, RangeValue, StateEffect, StateField, Text } from "@codemirror/state";

export type Ending = "\n" | "\r\n" | "\r";

export interface Form {
  /** Whether the text begins with a byte order mark. */
  marked: boolean;
  /** How most of its lines end; those that are added end so too. */
  ending: Ending;
}

/** A text taken apart; `others` are the line breaks that are not as most are. */
export interface Parts {
  form: Form;
  doc: Text;
  others: LineBreaks;
}

type LineBreaks = RangeSet<LineBreak>;

const MARK = "\ufeff";
const BREAK = /\r\n?|\n/g;

/** A line break that is not as most are. It covers the one place that a break has in the editor's text. */
class LineBreak extends RangeValue {
  // What is typed beside the break is not part of it.
  override startSide = 1;
  override endSide = -1;

  constructor(readonly ending: Ending) {
    super();
  }

  override eq(other: RangeValue): boolean {
    return other instanceof LineBreak && other.ending === this.ending;
  }
}

const replaceOthers = StateEffect.define<LineBreaks>();

const bringBack = StateEffect.define<ReadonlyArray<Range<LineBreak>>>({
  map: (ranges, changes) => moved(ranges, changes),
});

const others = StateField.define<LineBreaks>({
  create: () => RangeSet.empty,
  update(before, transaction) {
    let after = transaction.docChanged ? before.map(transaction.changes) : before;
    for (const effect of transaction.effects) {
      if (effect.is(replaceOthers)) after = effect.value;
      else if (effect.is(bringBack)) after = after.update({ add: effect.value, sort: true });
    }
    return after;
  },
});

/** Undoing the removal of a line break brings it back as it was. */
const undone = invertedEffects.of((transaction) => {
  const before = transaction.startState.field(others);
  if (before.size === 0 || !transaction.docChanged) return [];
  const removed: Array<Range<LineBreak>> = [];
  transaction.changes.iterChangedRanges((start, end) => {
    before.between(start, end, (from, to, value) => {
      if (from >= start && to <= end) removed.push(value.range(from, to));
    });
  });
  return removed.length === 0 ? [] : [bringBack.of(removed)];
});

/** Keeps how the lines of a text end, whatever is done with it. */
export function keepEndings(parts: Parts): Extension {
  return [others.init(() => parts.others), undone];
}

/** Returns the effect by which a state that gets another text also gets the endings of its lines. */
export function endingsOf(parts: Parts): StateEffect<unknown> {
  return replaceOthers.of(parts.others);
}

export function takeApart(content: string): Parts {
  const marked = content.startsWith(MARK);
  const text = marked ? content.slice(MARK.length) : content;
  const ending = usualEnding(text);
  const ranges: Array<Range<LineBreak>> = [];
  let shortened = 0;
  for (const found of text.matchAll(BREAK)) {
    const own = asEnding(found[0]);
    const at = found.index - shortened;
    if (own !== ending) ranges.push(new LineBreak(own).range(at, at + 1));
    shortened += own.length - 1;
  }
  return { form: { marked, ending }, doc: Text.of(text.split(BREAK)), others: RangeSet.of(ranges) };
}

/** Returns the text of a state as its file has it. */
export function putTogether(state: EditorState, form: Form): string {
  const mark = form.marked ? MARK : "";
  const breaks = state.field(others);
  if (breaks.size === 0) return mark + state.doc.sliceString(0, state.doc.length, form.ending);
  const own = new Map<number, Ending>();
  breaks.between(0, state.doc.length, (from, _, value) => {
    own.set(from, value.ending);
  });
  const pieces = [mark];
  let at = 0;
  for (const line of state.doc.iterLines()) {
    if (pieces.length > 1) pieces.push(own.get(at - 1) ?? form.ending);
    pieces.push(line);
    at += line.length + 1;
  }
  return pieces.join("");
}

function usualEnding(text: string): Ending {
  const counts: Record<Ending, number> = { "\n": 0, "\r\n": 0, "\r": 0 };
  for (const [found] of text.matchAll(BREAK)) counts[asEnding(found)] += 1;
  if (counts["\r\n"] > counts["\n"] && counts["\r\n"] >= counts["\r"]) return "\r\n";
  return counts["\r"] > counts["\n"] ? "\r" : "\n";
}

function asEnding(found: string): Ending {
  return found === "\r\n" || found === "\r" ? found : "\n";
}

function moved(ranges: ReadonlyArray<Range<LineBreak>>, changes: ChangeDesc): Array<Range<LineBreak>> {
  const after: Array<Range<LineBreak>> = [];
  RangeSet.of(ranges, true)
    .map(changes)
    .between(0, changes.newLength, (from, to, value) => {
      after.push(value.range(from, to));
    });
  return after;
}
