// openai-js.
import OpenAI from 'openai'

const client = (url) => new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none' })
const ask = (content) => [{ role: 'user', content }]
const chat_ = async (url, request) => (await client(url).chat.completions.create(request)).choices[0].message

export const chat = async ({ url, model, prompt }) => (await chat_(url, { model, messages: ask(prompt) })).content

export async function* stream({ url, model, prompt, signal }) {
  const chunks = await client(url).chat.completions.create({ model, messages: ask(prompt), stream: true })
  signal.addEventListener('abort', () => chunks.controller.abort())
  for await (const chunk of chunks) yield chunk.choices[0]?.delta?.content ?? ''
}

export const embed = async ({ url, model, prompt }) => (await client(url).embeddings.create({ model, input: prompt })).data[0].embedding

export async function tool({ url, model, prompt, weather }) {
  const message = await chat_(url, { model, messages: ask(prompt), tools: [{ type: 'function', function: weather }] })
  return [message.tool_calls[0].function.name, JSON.parse(message.tool_calls[0].function.arguments)]
}

export async function look({ url, model, prompt, image }) {
  const content = [{ type: 'text', text: prompt }, { type: 'image_url', image_url: { url: `data:image/png;base64,${image}` } }]
  return (await chat_(url, { model, messages: ask(content) })).content
}

export async function fill({ url, model, prompt, schema }) {
  const format = { type: 'json_schema', json_schema: { name: 'answer', schema, strict: true } }
  return JSON.parse((await chat_(url, { model, messages: ask(prompt), response_format: format })).content)
}

export const models = async ({ url }) => (await client(url).models.list()).data.map((model) => model.id)
