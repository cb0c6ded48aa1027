// Looks at the page of a copier in Chromium, wide and narrow, in light and dark: the state that is expected comes up, the
// figures are those of /status, nothing is wider than the screen, axe finds no violation, and no error is logged.
// Reads a line for each look from stdin: URL, STATE (or several, A|B), DIRECTORY and NAME with tabs between them. Screenshots go to
// DIRECTORY/NAME-*.png. The pages stay open from look to look, as an operator's would.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";

const { chromium } = createRequire(process.env.MILLRACE_PAGE_MODULES + "/")("playwright-core");
const axe = readFileSync(process.env.MILLRACE_PAGE_MODULES + "/axe-core/axe.min.js", "utf8");
const PATIENCE = 20_000;
const SIZES = { wide: { width: 1280, height: 900 }, narrow: { width: 390, height: 844 } };

const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });
const pages = [];

const open = async (url) => {
  for (const [size, viewport] of Object.entries(SIZES))
    for (const colorScheme of ["light", "dark"]) {
      const context = await browser.newContext({ viewport, colorScheme, reducedMotion: "reduce" });
      const page = await context.newPage();
      const errors = [];
      page.on("pageerror", (error) => errors.push(error.message));
      page.on("console", (message) => {
        // A connection that is lost is logged by the browser itself.
        if (message.type() === "error" && !message.text().includes("net::ERR")) errors.push(message.text());
      });
      await page.goto(url);
      pages.push({ page, errors, name: `${size}-${colorScheme}` });
    }
};

const FIGURES = {
  Sessions: (status) => status.report.sessions.captured,
  Copies: (status) => status.report.replicas.opened,
};
const sameFigures = async (page) => {
  const status = await page.evaluate(async () => (await fetch("/status")).json());
  return page.evaluate((wanted) => {
    const tiles = [...document.querySelectorAll("#tiles div")];
    const shown = (name) => tiles.find((it) => it.querySelector("dt").textContent === name).querySelector("dd").firstChild.textContent;
    return wanted.every(([name, value]) => Number(shown(name).replaceAll(",", "")) === value);
  }, Object.entries(FIGURES).map(([name, of]) => [name, of(status)]));
};
const until = async (what, test) => {
  for (const end = Date.now() + PATIENCE; Date.now() < end; await new Promise((later) => setTimeout(later, 250)))
    if (await test()) return;
  throw new Error(`in vain: ${what}`);
};

const look = async (state, directory, name) => {
  for (const { page, errors, name: screen } of pages) {
    const at = `${name}-${screen}`;
    await page.waitForFunction((wanted) => wanted.split("|").includes(document.getElementById("state").textContent), state, { timeout: PATIENCE })
      .catch(async () => { throw new Error(`${at}: "${await page.textContent("#state")}" instead of "${state}"`); });
    if (state !== "Connection lost") await until(`${at}: the figures of /status`, () => sameFigures(page));
    const extra = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    if (extra > 0) throw new Error(`${at}: ${extra} pixels wider than the screen`);
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => axe.run());
    if (violations.length) throw new Error(`${at}: ${JSON.stringify(violations.map(({ id, nodes }) => [id, nodes.map((it) => it.html + it.failureSummary)]), null, 1)}`);
    await page.screenshot({ path: `${directory}/${at}.png`, fullPage: true });
    if (errors.length) throw new Error(`${at}: ${errors.join("; ")}`);
  }
};

/** The charts and the spans work by keyboard alone. */
const keys = async () => {
  const [{ page }] = pages;
  const chart = page.locator("svg.chart").first();
  await chart.focus();
  await page.keyboard.press("End");
  await page.keyboard.press("ArrowLeft");
  const output = page.locator("figure .values").first();
  if (!(await output.textContent()).includes("ago: live ")) throw new Error(`keys: ${await output.textContent()}`);
  await page.locator("#spans input").first().focus();
  await page.keyboard.press("ArrowDown");
  if (!(await page.locator("#spans input[value='10800']").isChecked())) throw new Error("keys: the span did not change");
  // There is no point of five minutes yet, and the picture of the ten minutes is not left in its place.
  await page.keyboard.press("ArrowDown");
  await until("keys: an empty chart", async () => (await output.textContent()) === "nothing yet");
  for (const key of ["ArrowUp", "ArrowUp"]) await page.keyboard.press(key);
  await until("keys: the ten minutes again", async () => (await output.textContent()) !== "nothing yet");
};

/** What the charts show opens as a table by keyboard, and stays open for the looks that follow. */
const tables = async () => {
  for (const { page, name } of pages) {
    await page.locator("#as-table summary").focus();
    await page.keyboard.press("Enter");
    const cells = page.locator("#table tbody td");
    await until(`tables: ${name}: rows`, async () => (await cells.count()) > 0);
    const text = await cells.allTextContents();
    if (!text[0].endsWith(" ago") || !text[1].endsWith("/s")) throw new Error(`tables: ${name}: ${text}`);
  }
};

/** Figures change every second; what an operator reads stays where it is. */
const calm = async () => {
  const { page } = pages.find(({ name }) => name === "narrow-light");
  const table = page.locator("#hosts .scroll").first();
  await table.focus();
  await table.evaluate((element) => (element.scrollLeft = 20));
  await new Promise((later) => setTimeout(later, 2500));
  const left = await table.evaluate((element) => [element === document.activeElement, element.scrollLeft]);
  if (!left[0]) throw new Error("calm: the focus was lost");
  if (left[1] !== 20) throw new Error(`calm: scrolled to ${left[1]}`);
};

/** An answer that is slow brings no point twice. */
const slow = async () => {
  const [{ page }] = pages;
  const points = [];
  await page.route("**/history*", async (route) => {
    await new Promise((later) => setTimeout(later, 3000));
    // One that comes after the end of this test may find the copier gone.
    const answer = await route.fetch().catch(() => null);
    if (!answer) return;
    points.push(...(await answer.json()).points.map((point) => point.at));
    await route.fulfill({ response: answer });
  });
  await new Promise((later) => setTimeout(later, 10_000));
  await page.unroute("**/history*", { behavior: "ignoreErrors" });
  if (points.length < 3 || new Set(points).size !== points.length) throw new Error(`slow: ${points}`);
};

// Each line is answered by "ok", or by what is wrong.
for await (const line of createInterface({ input: process.stdin })) {
  const [url, state, directory, name] = line.split("\t");
  try {
    if (pages.length === 0) await open(url);
    await look(state, directory, name);
    if (name === "3-copying") for (const test of [keys, tables, calm, slow]) await test();
    console.log("ok");
  } catch (error) {
    console.log(error.message.replaceAll("\n", " "));
  }
}
await browser.close();
