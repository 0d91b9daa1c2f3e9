// node run.mjs CLIENT CASE {"url": …, "prompt": …}: the result as a line of JSON on stdout; of a stream a line for each piece.
// "abort" on stdin makes the client leave its stream in the library's way; the process lives on until stdin ends.
import { createInterface } from 'node:readline'

const [client, name, given] = process.argv.slice(2)
const cases = await import(`./${client}.mjs`)
const say = (record) => process.stdout.write(JSON.stringify(record) + '\n')
const leaving = new AbortController()

function told(error) {
  const last = error.lastError ?? error             // the AI SDK's RetryError has the last attempt's inside
  say({ error: { type: error.constructor.name, message: String(last.message ?? last), body: last.responseBody } })
}

const input = createInterface({ input: process.stdin })
input.on('line', () => leaving.abort())
try {
  const result = cases[name]({ ...JSON.parse(given), signal: leaving.signal })
  if (name === 'stream') for await (const piece of result) say({ piece })
  else say({ result: await result })
} catch (error) {
  told(error)
}
if (leaving.signal.aborted) await new Promise((resolve) => input.on('close', resolve))
process.exit()
