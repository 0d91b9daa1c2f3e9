// The AI SDK; which provider, says whoever imports this.
import { embed as embedding, generateObject, generateText, jsonSchema, streamText, tool as aTool } from 'ai'

export const cases = (provider) => ({
  chat: async ({ url, model, prompt }) => (await generateText({ model: provider(url)(model), prompt })).text,

  stream: async function* ({ url, model, prompt, signal }) {
    const parts = streamText({ model: provider(url)(model), prompt, abortSignal: signal, onError: () => {} }).fullStream
    for await (const part of parts) {
      if (part.type === 'error') throw part.error
      if (part.type === 'text-delta') yield part.text
    }
  },

  embed: async ({ url, model, prompt }) => (await embedding({ model: provider(url).textEmbeddingModel(model), value: prompt })).embedding,

  tool: async ({ url, model, prompt, weather }) => {
    const tools = { [weather.name]: aTool({ description: weather.description, inputSchema: jsonSchema(weather.parameters) }) }
    const [call] = (await generateText({ model: provider(url)(model), prompt, tools })).toolCalls
    return [call.toolName, call.input]
  },

  look: async ({ url, model, prompt, image }) => {
    const content = [{ type: 'text', text: prompt }, { type: 'file', data: image, mediaType: 'image/png' }]
    return (await generateText({ model: provider(url)(model), messages: [{ role: 'user', content }] })).text
  },

  fill: async ({ url, model, prompt, schema }) => (await generateObject({ model: provider(url)(model), prompt, schema: jsonSchema(schema) })).object,
})
