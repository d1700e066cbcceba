// Secrets as they are shown: to be typed, and to be looked at by a camera.

/** Letters between two spaces of what is typed. */
const GROUP = 4;

export function grouped(secret: string): string {
  return secret.match(new RegExp(`.{1,${GROUP}}`, "g"))?.join(" ") ?? "";
}

/** The dark squares of a QR code as a path, runs of a row together. */
export function squares(rows: readonly (readonly boolean[])[]): string {
  return rows
    .map((row, y) => {
      let path = "";
      for (let x = 0; x < row.length; x += 1) {
        if (!row[x]) continue;
        const from = x;
        while (row[x + 1]) x += 1;
        path += `M${from} ${y}h${x - from + 1}v1H${from}z`;
      }
      return path;
    })
    .join("");
}
