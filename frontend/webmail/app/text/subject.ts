// Subjects of answers: one prefix, whatever stood there before.

const PREFIX = /^\s*(?:(?:re|aw|sv|antw|fwd?|wg|tr|답장|회신|전달)\s*(?:\[\d+\])?\s*[:：]\s*)+/i;

export function bareSubject(subject: string): string {
  return subject.replace(PREFIX, "").trim();
}

export function answerSubject(subject: string): string {
  return `Re: ${bareSubject(subject)}`;
}

export function forwardSubject(subject: string): string {
  return `Fwd: ${bareSubject(subject)}`;
}
