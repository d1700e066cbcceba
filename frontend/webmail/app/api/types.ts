// The interface's shapes under the names that the page uses. They are generated: `npm run api`.
import type { components } from "./schema";

type Schemas = components["schemas"];

export type Mailbox = Schemas["Mailbox"];
export type Folder = Schemas["Folder"];
export type Role = Schemas["Role"];
export type Label = Schemas["Label"];
export type Summary = Schemas["MessageSummary"];
export type ThreadSummary = Schemas["ThreadSummary"];
export type ThreadMessage = Schemas["ThreadMessage"];
export type Thread = Schemas["Thread"];
export type Message = Schemas["Message"];
export type Attachment = Schemas["Attachment"];
export type Profile = Schemas["Profile"];
export type Session = { last_used_at?: string | null } & Schemas["OpenSession"];
export type Region = Schemas["Region"];
export type Frame = Schemas["Frame"];
export type Change = Schemas["Change"];
export type Outgoing = Schemas["Outgoing"];
export type FoundMessage = Schemas["FoundMessage"];
export type FoundThread = Schemas["FoundThread"];
export type Acquaintance = Schemas["Acquaintance"];
export type Mark = Schemas["Mark"];
export type Batch = Schemas["Batch"];
export type SavedDraft = Schemas["SavedDraft"];
export type SentReceipt = Schemas["SentReceipt"];
export type Cancelled = Schemas["Cancelled"];
export type UploadReceipt = Schemas["UploadReceipt"];
export type OutboxMessage = Schemas["OutboxMessage"];
export type OutboxRecipient = Schemas["OutboxRecipient"];
export type AppPassword = Schemas["ListedAppPassword"];
export type MadeAppPassword = Schemas["MadeAppPassword"];
export type SecondFactor = Schemas["SecondFactor"];
export type NewSecondFactor = Schemas["NewSecondFactor"];
export type RecoveryCodes = Schemas["RecoveryCodes"];
