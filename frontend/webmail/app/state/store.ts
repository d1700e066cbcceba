// What has to outlive the page, in the browser's own database: drafts and what waits to be sent, with their files.

const NAME = "postrider";
const VERSION = 1;
export type Shelf = "drafts" | "outbox";

let opening: Promise<IDBDatabase> | null = null;

function open(): Promise<IDBDatabase> {
  opening ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, VERSION);
    request.onupgradeneeded = () => {
      for (const shelf of ["drafts", "outbox"] satisfies Shelf[]) request.result.createObjectStore(shelf, { keyPath: "id" });
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("the browser's database cannot be opened"));
  });
  opening.catch(() => (opening = null));
  return opening;
}

async function run<T>(shelf: Shelf, mode: IDBTransactionMode, act: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  const database = await open();
  return new Promise((resolve, reject) => {
    const transaction = database.transaction(shelf, mode);
    const request = act(transaction.objectStore(shelf));
    transaction.oncomplete = () => resolve(request.result);
    transaction.onabort = transaction.onerror = () => reject(transaction.error ?? new Error("the browser's database did not write"));
  });
}

export function put(shelf: Shelf, value: { id: string }): Promise<IDBValidKey> {
  return run(shelf, "readwrite", (store) => store.put(value));
}

export function all<T>(shelf: Shelf): Promise<T[]> {
  return run(shelf, "readonly", (store) => store.getAll() as IDBRequest<T[]>);
}

export async function remove(shelf: Shelf, id: string): Promise<void> {
  await run(shelf, "readwrite", (store) => store.delete(id));
}

/** Nothing of an account stays when it logs out. */
export async function clear(): Promise<void> {
  await run("drafts", "readwrite", (store) => store.clear());
  await run("outbox", "readwrite", (store) => store.clear());
}
