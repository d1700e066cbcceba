// What happens while the page is open: changes over the wire, the title, notifications.
import { EventStream } from "../api/events";
import type { Change, Frame } from "../api/types";
import { t } from "../i18n/index.svelte";
import { shortName } from "../text/people";
import { compose } from "../compose/compose.svelte";
import { sending } from "../compose/sending.svelte";
import { queue } from "./actions.svelte";
import { lists } from "./list.svelte";
import { mailbox } from "./mailbox.svelte";
import { outbox } from "./outbox.svelte";
import { openThread, mailHere } from "./route.svelte";
import { client } from "./session.svelte";
import { settings } from "./settings.svelte";
import { bodyOf, dropThreads, forgetBodies, reading } from "./thread.svelte";

/** While changes of this page are on their way, those that come in wait, ms. */
const AGAIN_MS = 60;
/** Of one frame so many messages are told of by a notification. */
const NOTIFIED_MAX = 3;

let waiting: Change[] = [];
let timer: ReturnType<typeof setTimeout> | undefined;
let connected = $state(false);

export function isConnected(): boolean {
  return connected;
}

function take(): void {
  clearTimeout(timer);
  if (waiting.length === 0) return;
  if (queue.open > 0) {
    timer = setTimeout(take, AGAIN_MS);
    return;
  }
  const changes = waiting;
  waiting = [];
  dropThreads(changes);
  lists.changed();
  lists.current.changed(changes);
  reading.view?.changed(changes);
  compose.changedElsewhere(changes);
  mailbox.refreshSoon();
  // What is sent or called back is in other folders then.
  if (changes.some((change) => change.type === "message_created" || change.type === "message_updated")) outbox.refreshSoon();
}

function notify(frame: Frame): void {
  if (!settings.notify || typeof Notification === "undefined" || Notification.permission !== "granted") return;
  if (document.visibilityState === "visible") return;
  const inbox = mailbox.role("inbox")?.id;
  const fresh = frame.changes.filter((change) => change.type === "message_created" && change.folder_id === inbox && change.is_read === false);
  for (const change of fresh.slice(0, NOTIFIED_MAX)) {
    void bodyOf(change.message_id!).then((message) => {
      const note = new Notification(shortName(message.from), { body: message.subject || t("list.noSubject"), tag: message.id });
      note.onclick = () => {
        focus();
        openThread(message.thread_id);
        note.close();
      };
    }, () => {});
  }
}

const stream = new EventStream(client, {
  frame: (frame) => {
    waiting.push(...frame.changes);
    notify(frame);
    take();
  },
  resync: () => {
    forgetBodies();
    lists.forget();
    const { place, filter } = mailHere();
    lists.show(place, filter);
    void reading.view?.open();
    void mailbox.load().catch(() => {});
  },
  connected: (is) => {
    // What was refused while nothing answered is tried again.
    if (is && !connected) {
      queue.hurry();
      sending.hurry();
      void compose.hurry();
      if (lists.current.error) void lists.current.open();
      // What changed after the list was read and before this stream began is in neither.
      else lists.current.refreshSoon();
      mailbox.refreshSoon();
    }
    connected = is;
  },
});

export function start(): void {
  stream.start();
}

export function stop(): void {
  stream.stop();
  waiting = [];
  connected = false;
}
