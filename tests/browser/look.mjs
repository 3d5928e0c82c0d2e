// Somebody who looks at the dashboard in a real browser: Chromium, driven by playwright-core. `../dashboard.rs`
// runs it.
//
//     node look.mjs URL [DIRECTORY]
//
// It opens every page by its links, in light and dark, wide and as wide as a phone, with and without
// JavaScript; follows a disagreement to where the outputs differ; tries another policy; and goes by the
// keyboard alone. axe judges each page. It says on stdout what it saw, a line of JSON for each page: its
// `title`, its `text`, and in `wrong` all that must not be: errors of the console, dialogs, requests to
// elsewhere, serious findings of axe, what is too wide. Screenshots go into DIRECTORY, if there is one. It
// ends with 0 if it came to its end.

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'

import { chromium } from 'playwright-core'

const [url, screenshots] = process.argv.slice(2)
const origin = new URL(url).origin
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

const WIDE = { width: 1200, height: 800 }
const PHONE = { width: 360, height: 740 }

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  // Its own sandbox needs rights that root in a container lacks; it shows no page but ours.
  args: ['--no-sandbox', '--disable-gpu']
})

/** A browser window that remembers all that went wrong. */
async function open (options) {
  const context = await browser.newContext({ viewport: WIDE, ...options })
  const page = await context.newPage()
  const wrong = []
  page.on('console', said => { if (['error', 'warning'].includes(said.type())) wrong.push(`console: ${said.text()}`) })
  page.on('pageerror', error => wrong.push(`error: ${error}`))
  page.on('dialog', dialog => { wrong.push(`dialog: ${dialog.message()}`); dialog.dismiss() })
  page.on('request', request => { if (!request.url().startsWith(origin)) wrong.push(`elsewhere: ${request.url()}`) })
  return { context, page, wrong }
}

/** Says what is wrong with a page as it is now, and what it shows. */
async function judge (view, name) {
  const { page, wrong } = view
  for (const scheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme: scheme })
    await page.evaluate(axe)
    const { violations } = await page.evaluate(() => globalThis.axe.run())
    for (const { id, impact, nodes } of violations) {
      if (['serious', 'critical'].includes(impact)) wrong.push(`axe, ${scheme}: ${id}: ${nodes[0].html}`)
    }
    if (screenshots) await page.screenshot({ path: join(screenshots, `${name}-${scheme}.png`) })
  }
  await page.emulateMedia({ colorScheme: 'light' })
  await page.setViewportSize(PHONE)
  const width = await page.evaluate(() => document.documentElement.scrollWidth)
  if (width > PHONE.width) wrong.push(`${width} pixels wide on a phone`)
  if (screenshots) await page.screenshot({ path: join(screenshots, `${name}-phone.png`) })
  await page.setViewportSize(WIDE)
  await say(view, name)
}

async function say ({ page, wrong }, name) {
  const text = await page.locator('main').innerText()
  const line = { name, title: await page.title(), text, wrong: wrong.splice(0) }
  process.stdout.write(`${JSON.stringify(line)}\n`)
}

const view = await open({})
const { page } = view
await page.goto(url)
if (page.url() !== `${origin}/`) throw new Error(`the token is still in the address: ${page.url()}`)

// By the keyboard: past the head, and by the head to another page.
const focused = () => page.evaluate(() => document.activeElement.textContent)
await page.keyboard.press('Tab')
if (await focused() !== 'Skip to the content') throw new Error(`first is ${await focused()}`)
await page.keyboard.press('Enter')
if (await page.evaluate(() => document.activeElement.id) !== 'content') throw new Error('nothing was skipped')
await page.goto(`${origin}/`)
for (let n = 0; await focused() !== 'Packages'; n++) {
  if (n === 5) throw new Error('the keyboard does not lead to the packages')
  await page.keyboard.press('Tab')
}
await page.keyboard.press('Enter')
await page.waitForURL(`${origin}/packages`)

const pages = await page.locator('header nav a').evaluateAll(links => links.map(link => [link.textContent, link.href]))
for (const [name, address] of pages) {
  await page.goto(address)
  await judge(view, name.toLowerCase())
}

// From a disagreement to where the outputs differ.
for (const name of await (async () => {
  await page.goto(`${origin}/disagreements`)
  return page.locator('tbody tr td:nth-child(2) a').allTextContents()
})()) {
  await page.goto(`${origin}/disagreements`)
  await page.locator('tbody a', { hasText: name }).first().click()
  const download = page.getByRole('button', { name: /^Download/ })
  if (await download.count() > 0) {
    await download.click()
    await page.locator('.diff').waitFor()
  }
  await judge(view, `difference-${name}`)
  await page.getByRole('link', { name: 'The verdict, and why' }).click()
  await judge(view, `package-${name}`)
}

// Everybody's record.
await page.goto(`${origin}/attesters`)
for (const address of await page.locator('tbody a').evaluateAll(links => links.map(link => link.href))) {
  await page.goto(address)
  await judge(view, `attester-${address.split('/').pop()}`)
}

// Another policy.
await page.goto(`${origin}/policy`)
await page.getByLabel('Rule').selectOption('k')
await page.getByLabel(/^So many/).fill('3')
await page.getByRole('button', { name: 'Try' }).click()
await page.getByRole('status').waitFor()
await judge(view, 'policy-tried')

// What is looked for, and what is not there.
await page.goto(`${origin}/packages?q=nothing+is+called+that`)
await judge(view, 'nothing')

// Without JavaScript: the same links, the same pages.
const plain = await open({ javaScriptEnabled: false })
await plain.page.goto(url)
for (const [name, address] of pages) {
  await plain.page.goto(address)
  await say(plain, `${name.toLowerCase()}-plain`)
}

await browser.close()
