/** Measures a bit rate from pieces of known size, over the newest stretch of them. */
export class BitrateMeter {
  readonly #windowSeconds: number;
  #pieces: { readonly sizeBytes: number; readonly seconds: number }[] = [];

  /** @param windowSeconds the stretch to average over */
  constructor(windowSeconds: number) {
    this.#windowSeconds = windowSeconds;
  }

  /** @param seconds how long the piece plays, or how long it took to arrive */
  add(sizeBytes: number, seconds: number): void {
    if (!(seconds > 0)) return;
    this.#pieces.push({ sizeBytes, seconds });
    let total = this.#totalSeconds();
    for (;;) {
      const oldest = this.#pieces[0];
      if (oldest === undefined || total - oldest.seconds < this.#windowSeconds) return;
      total -= oldest.seconds;
      this.#pieces.shift();
    }
  }

  /** Bits per second; undefined before the first piece. */
  read(): number | undefined {
    const totalSeconds = this.#totalSeconds();
    if (totalSeconds === 0) return undefined;
    const totalBytes = this.#pieces.reduce((sum, piece) => sum + piece.sizeBytes, 0);
    return (totalBytes * 8) / totalSeconds;
  }

  #totalSeconds(): number {
    return this.#pieces.reduce((sum, piece) => sum + piece.seconds, 0);
  }
}
