/** A new account's first day, in a browser: its first login, a password and a second factor of its own. */
import { TOTP } from 'otpauth';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { launchChromium } from './browser.ts';
import { starling } from './network.ts';

const { site, dataDir } = inject('shared');
const OWN_PASSWORD = 'correct horse battery';

let browser: Browser;
beforeAll(async () => {
  browser = await launchChromium();
});
afterAll(() => browser.close());

async function logIn(page: Page, name: string, password: string): Promise<void> {
  await page.getByLabel('Name').fill(name);
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Log in' }).click();
}

it('logs in, chooses a password and a second factor, logs out, and logs in with them', async () => {
  const added = await starling(dataDir, ['account', 'add', 'newcomer', '--role', 'streamer', '--json']);
  const { password }: { password: string } = JSON.parse(added.stdout);
  const page = await browser.newPage();
  const violations: string[] = [];
  page.on('console', (message) => {
    if (/Content Security Policy|Refused to/.test(message.text())) violations.push(message.text());
  });
  await page.goto(`${site}/`);
  await page.getByRole('link', { name: 'Log in' }).click();
  await logIn(page, 'newcomer', 'a wrong password');
  await page.getByText('The name, the password or the code is wrong.').waitFor();
  await logIn(page, 'newcomer', password);
  await page.getByText('Choose one of your own').waitFor();
  expect(await page.getByRole('heading', { name: 'Second factor' }).count()).toBe(0);

  await page.getByLabel('Present password').fill(password);
  await page.getByLabel('New password').fill(OWN_PASSWORD);
  await page.getByRole('button', { name: 'Change it' }).click();
  await logIn(page, 'newcomer', OWN_PASSWORD);
  await page.getByText('You are logged in as newcomer, streamer.').waitFor();
  const [cookie] = await page.context().cookies();
  expect(cookie).toMatchObject({ name: 'starling', httpOnly: true, sameSite: 'Strict' });
  expect(await page.evaluate(() => document.cookie)).toBe('');

  await page.getByLabel('Password', { exact: true }).fill(OWN_PASSWORD);
  await page.getByRole('button', { name: 'Set it up' }).click();
  const totp = new TOTP({ secret: (await page.locator('.account pre').textContent()) ?? '' });
  await page.getByLabel('Code').fill(totp.generate());
  await page.getByRole('button', { name: 'Turn it on' }).click();
  await page.getByText('It is on.').waitFor();
  const [recoveryCode = ''] = ((await page.locator('.account pre').textContent()) ?? '').split('\n');

  await page.getByRole('button', { name: 'Log out' }).click();
  await page.waitForURL(`${site}/`);
  await page.goto(`${site}/account`);
  await page.waitForURL(`${site}/login`);
  await logIn(page, 'newcomer', OWN_PASSWORD);
  await page.getByLabel('Code, or a recovery code').fill(recoveryCode);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByText('You are logged in as newcomer, streamer.').waitFor();
  expect(violations).toEqual([]);
}, 60_000);
