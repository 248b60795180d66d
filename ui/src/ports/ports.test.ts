import { cleanup, render, screen, within } from "@testing-library/svelte";
import userEvent from "@testing-library/user-event";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

import { failure } from "../../test/sessions";
import type { Port } from "../bindings/Port";
import { CommandError } from "../lib/ipc/error";
import { chipsThatFit, type PortCommands, Ports, type SessionPorts } from "./ports.svelte";
import PortsPane from "./PortsPane.svelte";

function port(number: number, local: number | null, process: string | null = "python3", address: string | null = "0.0.0.0"): Port {
  return { port: number, address, process, local: local === null ? null : { host: "127.0.0.1", port: local } };
}

function refusal(fields: Record<string, string>): CommandError {
  return new CommandError({ ok: false, error: "VALIDATION_ERROR", message: "no", hint: "", details: { fields } });
}

/** Forwards whatever it is asked to, as the Rust side does. */
class Rust implements PortCommands {
  ports: Port[] = [];
  seq = 0;
  refuse: CommandError | null = null;
  readonly asked: unknown[] = [];

  listPorts = async () => this.#list();

  forwardPort = async (_: unknown, number: number, local: number | null) => {
    this.asked.push(["forward", number, local]);
    const kept = this.ports.filter((known) => known.port !== number);
    return this.#answer([...kept, port(number, local ?? number)]);
  };

  unforwardPort = async (_: unknown, number: number) => {
    this.asked.push(["stop", number]);
    return this.#answer(this.ports.map((known) => (known.port === number ? { ...known, local: null } : known)));
  };

  openPort = async (_: unknown, number: number) => {
    this.asked.push(["open", number]);
    if (this.refuse) throw this.refuse;
  };

  #answer(ports: Port[]) {
    if (this.refuse) throw this.refuse;
    this.ports = ports;
    this.seq += 1;
    return this.#list();
  }

  #list() {
    return { ports: this.ports, truncated: false, seq: this.seq };
  }
}

let rust: Rust;
let told: Array<[string, number[]]>;
let all: Ports;
let ports: SessionPorts;

beforeEach(() => {
  rust = new Rust();
  told = [];
  all = new Ports(rust, (id, news) => told.push([id, news.map((known) => known.port)]));
  all.take({ session_id: "a", seq: 0, truncated: false, ports: [] });
  ports = all.known.get("a")!;
});

afterEach(cleanup);

describe("the ports of a session", () => {
  it("are told once when they are forwarded, and each session's are its own", async () => {
    all.take({ session_id: "a", seq: 1, truncated: false, ports: [port(8000, 8000), port(9000, null)] });
    all.take({ session_id: "b", seq: 2, truncated: false, ports: [port(8000, 49_152)] });
    all.take({ session_id: "a", seq: 3, truncated: false, ports: [] });
    all.take({ session_id: "a", seq: 4, truncated: false, ports: [port(8000, 8000), port(9000, 9000)] });
    expect(told).toEqual([
      ["a", [8000]],
      ["b", [8000]],
      ["a", [9000]],
    ]);
    expect(ports.forwarded.map((known) => known.port)).toEqual([8000, 9000]);
  });

  it("are the newest, however late another answer comes", async () => {
    rust.ports = [port(1, 1)];
    rust.seq = 3;
    ports.take({ seq: 4, truncated: false, ports: [port(2, 2)] });
    await all.load("a");
    expect(ports.list.map((known) => known.port)).toEqual([2]);
    rust.seq = 5;
    await all.load("a");
    expect(ports.list.map((known) => known.port)).toEqual([1]);
  });

  it("are forwarded as they are typed, and what is wrong is said at the field", async () => {
    for (const [typed, asked] of [
      ["3000", ["forward", 3000, null]],
      [" 3000 : 8080 ", ["forward", 3000, 8080]],
    ] as const) {
      ports.typed = typed;
      await ports.submit();
      expect([rust.asked.at(-1), ports.typed, ports.problem]).toEqual([asked, "", null]);
    }
    expect(told, "who has typed it knows").toEqual([]);
    for (const typed of ["", "http", "3000:", "3000:a", "123456", "-1", "1.5"]) {
      ports.typed = typed;
      await ports.submit();
      expect([ports.typed, ports.problem]).toEqual([typed, "must be a port as 3000, or two as 3000:8080"]);
    }
    expect(rust.asked).toHaveLength(2);
    rust.refuse = refusal({ local_port: "8080 is taken on this machine; choose another" });
    ports.typed = "3000:8080";
    await ports.submit();
    expect([ports.typed, ports.problem]).toEqual(["3000:8080", "8080 is taken on this machine; choose another"]);
    rust.refuse = new CommandError(failure("SESSION_NOT_READY"));
    await ports.submit();
    expect([ports.problem, ports.failure?.error]).toEqual([null, "SESSION_NOT_READY"]);
  });

  it("are shown as many as can be looked at, and what is forwarded is among them", () => {
    const many = Array.from({ length: 1_000 }, (_, index) => port(index + 1, index === 999 ? 1_000 : null));
    ports.take({ seq: 1, truncated: false, ports: many });
    expect([ports.shown.length, ports.shown[0]?.port, ports.shown[1]?.port, ports.hasMore]).toEqual([200, 1_000, 1, true]);
    ports.take({ seq: 2, truncated: false, ports: many.slice(0, 200) });
    expect([ports.shown.length, ports.hasMore]).toEqual([200, false]);
  });

  it("of sessions that are gone are forgotten", () => {
    ports.take({ seq: 1, truncated: false, ports: [port(1, 1)] });
    all.keep(["a"]);
    expect(all.known.get("a")?.list).toHaveLength(1);
    all.keep([]);
    expect(all.known.get("a")).toBeUndefined();
  });
});

describe("the view of ports", () => {
  it("says what listens where, and what can be done with it works from the keyboard", async () => {
    const user = userEvent.setup();
    const copied: string[] = [];
    render(PortsPane, { ports, oncopy: (text: string) => copied.push(text) });
    expect(screen.getByTestId("no-ports")).toBeInTheDocument();
    rust.ports = [port(5432, 49_152, "postgres", "127.0.0.1"), port(8000, 8000, "a\u202eb"), port(22, null, null), port(7000, 7000, null, null)];
    await all.load("a");
    const row = async (number: number) => within((await screen.findByText(String(number))).closest("li")!);
    expect((await row(5432)).getByText("127.0.0.1:49152")).toBeInTheDocument();
    expect((await row(8000)).getByText("a⟨U+202E⟩b")).toBeInTheDocument();
    expect((await row(22)).getByText("a program of another user")).toBeInTheDocument();
    expect((await row(22)).getByText("not forwarded")).toBeInTheDocument();
    expect((await row(7000)).getByText("nothing listens now")).toBeInTheDocument();

    (await row(5432)).getByRole("button", { name: "Open port 5432 in the browser" }).focus();
    await user.keyboard("{Enter}");
    await user.tab();
    await user.keyboard("{Enter}");
    await user.tab();
    await user.keyboard("{Enter}");
    await user.click((await row(22)).getByRole("button", { name: "Forward port 22" }));
    expect(copied).toEqual(["127.0.0.1:49152"]);
    expect(rust.asked).toEqual([
      ["open", 5432],
      ["stop", 5432],
      ["forward", 22, null],
    ]);
    expect((await row(5432)).getByRole("button", { name: "Forward port 5432" })).toBeInTheDocument();
  });

  it("says what did not work, and at the field what was typed wrong", async () => {
    const user = userEvent.setup();
    rust.ports = [port(8000, 8000)];
    await all.load("a");
    render(PortsPane, { ports, oncopy: () => {} });
    rust.refuse = new CommandError({ ...failure("NOT_OPENED"), message: "failed to open `http://127.0.0.1:8000`: no browser" });
    await user.click(screen.getByRole("button", { name: "Open port 8000 in the browser" }));
    expect(await screen.findByTestId("ports-failure")).toHaveTextContent("no browser");
    await user.type(screen.getByTestId("port-to-forward"), "80:{Enter}");
    expect(await screen.findByText(/must be a port as/)).toHaveAttribute("role", "alert");
    expect(screen.getByTestId("port-to-forward")).toBeInvalid();
  });
});

it("as many chips are shown as have room, and the rest is counted", () => {
  expect(chipsThatFit(3, 530, 176, 48)).toBe(3);
  expect(chipsThatFit(4, 530, 176, 48)).toBe(2);
  expect(chipsThatFit(4, 580, 176, 48)).toBe(3);
  expect(chipsThatFit(1, 0, 176, 48)).toBe(0);
  expect(chipsThatFit(1_000, 176, 176, 48)).toBe(0);
  expect(chipsThatFit(0, 530, 176, 48)).toBe(0);
});
