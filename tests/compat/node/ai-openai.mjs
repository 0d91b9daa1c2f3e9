// The AI SDK with @ai-sdk/openai-compatible: OpenAI's routes.
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { cases } from './ai.mjs'

const provider = (url) => createOpenAICompatible({ name: 'hermes', baseURL: `${url}/v1`, includeUsage: true, supportsStructuredOutputs: true })

export const { chat, stream, embed, tool, look, fill } = cases(provider)
