// Folders, labels and the account: what stands at the side of the page.
import type { Folder, Label, Profile, Role } from "../api/types";
import { t, type Key } from "../i18n/index.svelte";
import type { Place } from "./route.svelte";
import { client } from "./session.svelte";

const ORDER: Role[] = ["inbox", "drafts", "sent", "archive", "junk", "trash"];
/** Changes that come together are one question, ms. */
const TOGETHER_MS = 250;

class Mailbox {
  folders = $state.raw<Folder[]>([]);
  labels = $state.raw<Label[]>([]);
  profile = $state.raw<Profile | null>(null);
  ready = $state(false);
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** Those with a role, as everybody expects them; then one's own by name. */
  readonly system = $derived(ORDER.flatMap((role) => this.folders.filter((folder) => folder.role === role)));
  readonly own = $derived(
    this.folders.filter((folder) => !folder.role || !ORDER.includes(folder.role)).sort((a, b) => a.name.localeCompare(b.name)),
  );
  readonly sortedLabels = $derived([...this.labels].sort((a, b) => a.name.localeCompare(b.name)));

  async load(): Promise<void> {
    const [folders, labels, profile] = await Promise.all([
      client.get<Folder[]>("/v1/folders"),
      client.get<Label[]>("/v1/labels"),
      client.get<Profile>("/v1/profile"),
    ]);
    this.folders = folders.body;
    this.labels = labels.body;
    this.profile = profile.body;
    this.ready = true;
  }

  forget(): void {
    clearTimeout(this.#timer);
    this.folders = [];
    this.labels = [];
    this.profile = null;
    this.ready = false;
  }

  /** Counts are no changes of folders: they are asked for when something else has changed. */
  refreshSoon(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.refresh(), TOGETHER_MS);
  }

  async refresh(): Promise<void> {
    try {
      const [folders, labels] = await Promise.all([client.get<Folder[]>("/v1/folders"), client.get<Label[]>("/v1/labels")]);
      this.folders = folders.body;
      this.labels = labels.body;
    } catch {
      // The line on top says that nothing answers; the counts are those of before.
    }
  }

  role(role: Role): Folder | undefined {
    return this.folders.find((folder) => folder.role === role);
  }

  folder(id: string): Folder | undefined {
    return this.folders.find((folder) => folder.id === id);
  }

  label(id: string): Label | undefined {
    return this.labels.find((label) => label.id === id);
  }

  folderAt(place: Place): Folder | undefined {
    if (place.kind !== "folder") return undefined;
    return this.folders.find((folder) => folder.role === place.key) ?? this.folder(place.key);
  }

  /** Before the interface says it. */
  adjust(folder: string, total: number, unread: number): void {
    this.folders = this.folders.map((one) =>
      one.id === folder ? { ...one, total: Math.max(0, one.total + total), unread: Math.max(0, one.unread + unread) } : one,
    );
  }

  get addresses(): string[] {
    return this.profile ? [this.profile.address] : [];
  }

  isMe(email: string): boolean {
    return this.addresses.some((mine) => mine.toLowerCase() === email.toLowerCase());
  }
}

export const mailbox = new Mailbox();

export function folderName(folder: Folder): string {
  const key = `folder.${folder.role}`;
  return folder.role && folder.role in ROLE_KEYS ? t(key as Key) : folder.name;
}

const ROLE_KEYS: Record<Role, true> = { inbox: true, drafts: true, sent: true, archive: true, junk: true, trash: true, all: true, flagged: true };

export function placeOfFolder(folder: Folder): Place {
  return { kind: "folder", key: folder.role ?? folder.id };
}

export function placeName(place: Place): string {
  switch (place.kind) {
    case "folder": {
      const folder = mailbox.folderAt(place);
      return folder ? folderName(folder) : "";
    }
    case "label":
      return mailbox.label(place.id)?.name ?? "";
    case "search":
      return place.query;
    case "starred":
      return t("folder.starred");
    case "outbox":
      return t("folder.outbox");
  }
}
