// @anthropic-ai/sdk. The stand-in says as much as it may.
import Anthropic from '@anthropic-ai/sdk'

const client = (url) => new Anthropic({ baseURL: url, apiKey: 'none' })
const ask = ({ model, prompt, tokens }, content = prompt) => (
  { model, max_tokens: prompt.includes('@@') ? 1000 : tokens, messages: [{ role: 'user', content }] })

export const chat = async (given) => (await client(given.url).messages.create(ask(given))).content[0].text

export async function* stream(given) {
  const events = await client(given.url).messages.create({ ...ask(given), stream: true })
  given.signal.addEventListener('abort', () => events.controller.abort())
  for await (const event of events) if (event.type === 'content_block_delta') yield event.delta.text
}

export async function tool(given) {
  const { name, description, parameters } = given.weather
  const message = await client(given.url).messages.create({ ...ask(given), tools: [{ name, description, input_schema: parameters }] })
  const call = message.content.find((block) => block.type === 'tool_use')
  return [call.name, call.input]
}

export async function look(given) {
  const image = { type: 'image', source: { type: 'base64', media_type: 'image/png', data: given.image } }
  return (await client(given.url).messages.create(ask(given, [image, { type: 'text', text: given.prompt }]))).content[0].text
}

export const models = async ({ url }) => (await client(url).models.list()).data.map((model) => model.id)
