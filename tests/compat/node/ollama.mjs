// ollama-js.
import { Ollama } from 'ollama'

const ask = (prompt, more) => [{ role: 'user', content: prompt, ...more }]
const chat_ = async (url, request) => (await new Ollama({ host: url }).chat(request)).message

export const chat = async ({ url, model, prompt }) => (await chat_(url, { model, messages: ask(prompt) })).content

export async function* stream({ url, model, prompt, signal }) {
  const parts = await new Ollama({ host: url }).chat({ model, messages: ask(prompt), stream: true })
  signal.addEventListener('abort', () => parts.abort())
  for await (const part of parts) yield part.message.content
}

export const embed = async ({ url, model, prompt }) => (await new Ollama({ host: url }).embed({ model, input: prompt })).embeddings[0]

export async function tool({ url, model, prompt, weather }) {
  const message = await chat_(url, { model, messages: ask(prompt), tools: [{ type: 'function', function: weather }] })
  return [message.tool_calls[0].function.name, message.tool_calls[0].function.arguments]
}

export const look = async ({ url, model, prompt, image }) => (await chat_(url, { model, messages: ask(prompt, { images: [image] }) })).content

export const fill = async ({ url, model, prompt, schema }) => JSON.parse((await chat_(url, { model, messages: ask(prompt), format: schema })).content)

export const models = async ({ url }) => (await new Ollama({ host: url }).list()).models.map((model) => model.name)
