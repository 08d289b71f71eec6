#!/usr/bin/env python3
"""Talks to `retort serve` with the `openai` package, as other tools do: models, chats, streams, completions, JSON, mistakes.

    pip install openai
    retort serve --model MODEL.gguf --port 8080
    python tests/peers/openai_client.py http://127.0.0.1:8080/v1

Prints what came; ends with an error where something is not as OpenAI's own server would have it.
"""

import asyncio
import json
import sys
import time

import openai

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080/v1"


async def many(model, n):
    client = openai.AsyncOpenAI(base_url=URL, api_key="none")
    ask = lambda i: client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": f"Count from {i}."}], max_tokens=32, temperature=0
    )
    begin = time.perf_counter()
    replies = await asyncio.gather(*map(ask, range(n)))
    seconds = time.perf_counter() - begin
    tokens = sum(reply.usage.completion_tokens for reply in replies)
    print(f"{n} at once: {tokens} tokens in {seconds:.1f} s, {tokens / seconds:.0f} a second")
    return [reply.choices[0].message.content for reply in replies]


def main():
    client = openai.OpenAI(base_url=URL, api_key="none")
    (model,) = [model.id for model in client.models.list()]
    print("model:", model)
    chat = {"model": model, "messages": [{"role": "user", "content": "Count from 0."}], "max_tokens": 32, "temperature": 0}
    reply = client.chat.completions.create(**chat)
    print("chat:", repr(reply.choices[0].message.content), reply.choices[0].finish_reason, reply.usage.total_tokens)
    stream = client.chat.completions.create(**chat, stream=True, stream_options={"include_usage": True})
    parts = list(stream)
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert text == reply.choices[0].message.content, text
    assert parts[-1].usage.total_tokens == reply.usage.total_tokens
    again = asyncio.run(many(model, 8))
    assert again[0] == text, again[0]
    completion = client.completions.create(model=model, prompt="One, two, three,", max_tokens=8, temperature=0)
    print("completion:", repr(completion.choices[0].text))
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}}
    reply = client.chat.completions.create(**chat | {"max_tokens": 64}, response_format=form)
    print("JSON:", json.loads(reply.choices[0].message.content))
    for mistake, kind in [({"model": "gpt-4o"}, openai.NotFoundError), ({"max_tokens": 1 << 20}, openai.BadRequestError)]:
        try:
            client.chat.completions.create(**chat | mistake)
        except kind as error:
            print("refused:", error.body["message"])
        else:
            raise AssertionError(f"{mistake} was not refused")


if __name__ == "__main__":
    main()
