// Builds the webmail again and compares with what is committed: what a browser would get has to be the same. Compressed forms are compared by
// what they unpack to, since libraries of other versions pack differently.
import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { brotliDecompressSync, gunzipSync } from "node:zlib";

const root = join(import.meta.dirname, "..");
const dist = join(root, "dist");
const before = mkdtempSync(join(tmpdir(), "webmail-"));
cpSync(dist, before, { recursive: true });

function files(folder, at = folder) {
  return readdirSync(at).flatMap((name) => (statSync(join(at, name)).isDirectory() ? files(folder, join(at, name)) : [relative(folder, join(at, name))]));
}

function held(path) {
  const bytes = readFileSync(path);
  if (path.endsWith(".br")) return brotliDecompressSync(bytes);
  return path.endsWith(".gz") ? gunzipSync(bytes) : bytes;
}

try {
  execFileSync("npm", ["run", "build"], { cwd: root, stdio: "inherit" });
  const [was, is] = [files(before).sort(), files(dist).sort()];
  const wrong = [...was.filter((name) => !is.includes(name)).map((name) => `${name} is not built any more`), ...is.filter((name) => !was.includes(name)).map((name) => `${name} is not committed`)];
  for (const name of is) if (was.includes(name) && !held(join(before, name)).equals(held(join(dist, name)))) wrong.push(`${name} differs`);
  if (wrong.length > 0) {
    console.error(`dist/ is not what app/ makes: npm run build, and commit it\n${wrong.join("\n")}`);
    process.exitCode = 1;
  } else {
    console.log(`${is.length} files, all as they are built`);
  }
} finally {
  rmSync(before, { recursive: true, force: true });
}
