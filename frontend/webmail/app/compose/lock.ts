// Which tab looks after a draft: one of those that one browser has open.

/** Gives the lock of a draft, or null where another tab has it. Where there are no locks (no secure context) every tab gets it. */
export function taken(id: string): Promise<(() => void) | null> {
  if (!navigator.locks) return Promise.resolve(() => {});
  return new Promise((resolve, reject) => {
    const held = navigator.locks.request(`postrider.draft.${id}`, { ifAvailable: true }, (lock) => {
      if (!lock) return resolve(null);
      return new Promise<void>((release) => resolve(release));
    });
    held.catch(reject);
  });
}
