// Whether the graphics card draws quickly. Where there is none the processor does its work, and the page waits for it.

/** A frame that took longer is slow, in milliseconds. */
const SLOW_FRAME_MS = 100;
/** How long the trial may take, in milliseconds: a graphics card needs a tenth of it. */
const TRIAL_MS = 10;
/** The trial: so many squares of so many pixels a side, each over the last. */
const SQUARES = 20;
const SIDE = 768;

const VERTEX = `#version 300 es
void main() {
  gl_Position = vec4(gl_VertexID % 2 == 0 ? -1.0 : 1.0, gl_VertexID / 2 == 0 ? -1.0 : 1.0, 0.0, 1.0);
}`;
const FRAGMENT = `#version 300 es
precision mediump float;
out vec4 colour;
void main() {
  colour = vec4(0.1, 0.2, 0.3, 0.1);
}`;

const known: { quick: boolean | null } = { quick: null };

/** Returns whether there is a graphics card that is worth using; it is tried once. */
export function isQuick(): boolean {
  known.quick ??= tried();
  return known.quick;
}

/** Returns whether this frame, in which a terminal has just been drawn, has taken too long. */
export function isSlowFrame(): boolean {
  const begin = document.timeline.currentTime;
  return typeof begin === "number" && performance.now() - begin > SLOW_FRAME_MS;
}

function tried(): boolean {
  const canvas = document.createElement("canvas");
  canvas.width = SIDE;
  canvas.height = SIDE;
  const gl = canvas.getContext("webgl2", { antialias: false });
  if (!gl) return false;
  try {
    const program = gl.createProgram();
    for (const [type, source] of [
      [gl.VERTEX_SHADER, VERTEX],
      [gl.FRAGMENT_SHADER, FRAGMENT],
    ] as const) {
      const shader = gl.createShader(type);
      if (!shader) return false;
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    gl.useProgram(program);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
    const pixel = new Uint8Array(4);
    // What is read has been drawn.
    const draw = (squares: number) => {
      for (let n = 0; n < squares; n += 1) gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
      gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
    };
    draw(1);
    const begin = performance.now();
    draw(SQUARES);
    return performance.now() - begin < TRIAL_MS;
  } finally {
    gl.getExtension("WEBGL_lose_context")?.loseContext();
  }
}
