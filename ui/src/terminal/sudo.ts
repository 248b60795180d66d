// Finds what `sudo` says where a container does not let it become root.

const SENTENCE = '"no new privileges" flag is set';

/** The most bytes of a piece that are looked at: more is a flood, and no sentence of `sudo`. */
const LOOKED_AT = 8 * 1024;

/** Looks through output as it comes, also where a piece ends within the sentence. It keeps a few characters. */
export class SudoRefusal {
  #end = "";

  /** Returns whether the sentence ends in this piece. */
  isIn(bytes: Uint8Array): boolean {
    const text = this.#end + String.fromCharCode(...bytes.subarray(-LOOKED_AT));
    this.#end = text.slice(-(SENTENCE.length - 1));
    return text.includes(SENTENCE);
  }
}
