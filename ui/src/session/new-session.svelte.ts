// The form of a new session: what is typed, what was wrong with it, and one request at a time.

import type { ChosenArchive } from "../bindings/ChosenArchive";
import type { ErrorReport } from "../bindings/ErrorReport";
import type { ImageView } from "../bindings/ImageView";
import type { Network } from "../bindings/Network";
import type { TemplateCard } from "../bindings/TemplateCard";
import type { Suggestion } from "../lib/components/suggestion";
import { bytes } from "../lib/format";
import type * as commands from "../lib/ipc/commands";
import { problemsOf, reportOf } from "../lib/ipc/error";

const FIELDS = ["project_name", "workspace_id", "template", "image", "description", "archive", "network"] as const;

type FormCommands = Pick<typeof commands, "listTemplates" | "listImages" | "chooseArchive">;

export class NewSession {
  open = $state(false);
  template = $state("");
  image = $state("");
  projectName = $state("");
  workspaceId = $state("default");
  description = $state("");
  allowPrivilegeGain = $state(false);
  network = $state<Network>("own");
  /** Whose files the session starts with. */
  archive = $state.raw<ChosenArchive | null>(null);
  /** While the system's dialog is open. */
  choosing = $state(false);

  problems = $state.raw<Record<string, string>>({});
  /** What went wrong that belongs to no field. */
  failure = $state.raw<ErrorReport | null>(null);
  submitting = $state(false);

  templates = $state.raw<TemplateCard[]>([]);
  images = $state.raw<ImageView[]>([]);

  readonly #commands: FormCommands;

  constructor(formCommands: FormCommands) {
    this.#commands = formCommands;
  }

  readonly chosen = $derived.by(() => this.templates.find((template) => template.id === this.template));
  readonly imageTyped = $derived.by(() => this.image.trim() !== "");
  readonly imageName = $derived.by(() => this.image.trim() || (this.chosen?.image_name ?? ""));

  /** Reads the templates, so that the dialog opens complete. */
  async prepare(): Promise<void> {
    if (this.templates.length > 0) return;
    try {
      this.templates = await this.#commands.listTemplates();
    } catch (thrown) {
      this.failure = reportOf(thrown);
    }
    if (!this.chosen) this.template = (this.templates.find((card) => card.built_in) ?? this.templates[0])?.id ?? "";
  }

  /** Opens with what was typed before, if that never became a session. */
  async show(workspace?: string): Promise<void> {
    if (this.open) return;
    this.open = true;
    this.failure = null;
    this.problems = {};
    if (workspace !== undefined) this.workspaceId = workspace;
    await Promise.all([this.prepare(), this.suggestImages()]);
  }

  close(): void {
    this.open = false;
  }

  async chooseArchive(): Promise<void> {
    if (this.choosing) return;
    this.choosing = true;
    try {
      // A dialog that was dismissed changes nothing.
      this.archive = (await this.#commands.chooseArchive()) ?? this.archive;
      this.problems = Object.fromEntries(Object.entries(this.problems).filter(([field]) => field !== "archive"));
    } catch (thrown) {
      const failure = reportOf(thrown);
      this.problems = { ...this.problems, archive: failure.message };
    } finally {
      this.choosing = false;
    }
  }

  onEngine(image: string): boolean {
    return this.images.some((known) => known.image_name === image);
  }

  /** Sends the request. A second press does nothing, nor one on a dialog that is just closing. */
  async submit(create: (request: commands.CreateRequest, imageName: string) => Promise<unknown>): Promise<void> {
    if (this.submitting || !this.open) return;
    this.submitting = true;
    this.failure = null;
    this.problems = {};
    try {
      await create(this.#request(), this.imageName);
      this.open = false;
      this.image = "";
      this.projectName = "";
      this.description = "";
      this.allowPrivilegeGain = false;
      this.network = "own";
      this.archive = null;
    } catch (thrown) {
      const failure = reportOf(thrown);
      this.problems = problemsOf(failure);
      const placed = FIELDS.some((field) => field in this.problems);
      this.failure = placed ? null : failure;
    } finally {
      this.submitting = false;
    }
  }

  /** Images are suggestions: without them the field still takes any reference. */
  async suggestImages(): Promise<void> {
    try {
      this.images = await this.#commands.listImages();
    } catch {
      this.images = [];
    }
  }

  #request(): commands.CreateRequest {
    return {
      workspace_id: this.workspaceId,
      ...(this.imageTyped ? { image: this.image.trim() } : this.template === "" ? {} : { template: this.template }),
      ...(this.projectName.trim() === "" ? {} : { project_name: this.projectName.trim() }),
      ...(this.description.trim() === "" ? {} : { description: this.description.trim() }),
      ...(this.allowPrivilegeGain ? { allow_privilege_gain: true } : {}),
      ...(this.network === "own" ? {} : { network: this.network }),
      ...(this.archive === null ? {} : { archive: this.archive.token }),
    };
  }
}

/** The images of the engine, as a field suggests them. */
export function imageSuggestions(images: readonly ImageView[]): Suggestion[] {
  return images.map((image) => ({ value: image.image_name, mark: `no download · ${bytes(image.size_bytes)}` }));
}
