// The AI SDK with ollama-ai-provider-v2: Ollama's own routes.
import { createOllama } from 'ollama-ai-provider-v2'
import { cases } from './ai.mjs'

export const { chat, stream, embed, tool, look, fill } = cases((url) => createOllama({ baseURL: `${url}/api` }))
