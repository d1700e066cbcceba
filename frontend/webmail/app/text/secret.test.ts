import { encode } from "uqr";
import { describe, expect, it } from "vitest";

import { grouped, squares } from "./secret";

describe("secrets", () => {
  it("are typed in groups", () => {
    expect(grouped("GEZDGNBVGY3T")).toBe("GEZD GNBV GY3T");
    expect(grouped("ABCDE")).toBe("ABCD E");
    expect(grouped("")).toBe("");
  });

  it("are drawn square by square", () => {
    expect(squares([[true, true, false, true], [false, false, false, false], [false, true, false, false]])).toBe("M0 0h2v1H0zM3 0h1v1H3zM1 2h1v1H1z");
  });

  it("are a QR code with its three corners", () => {
    const { size, data } = encode("otpauth://totp/Postrider:ada@postrider.example?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Postrider", { ecc: "M", border: 4 });
    expect(data.length).toBe(size);
    const corner = (x: number, y: number): string => Array.from({ length: 7 }, (_, at) => (data[y]![x + at] ? "#" : ".")).join("");
    for (const [x, y] of [[4, 4], [size - 11, 4], [4, size - 11]] as const) {
      expect([corner(x, y), corner(x, y + 1), corner(x, y + 3)]).toEqual(["#######", "#.....#", "#.###.#"]);
    }
  });
});
