// The last thing that was done, told to whoever looks and whoever listens.
let said = $state("");

export function lastSaid(): string {
  return said;
}

export function say(sentence: string): void {
  said = sentence;
}
