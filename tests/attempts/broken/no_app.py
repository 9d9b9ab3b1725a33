# cannot be judged: no FastAPI object in the file (it has only the functions allow and chat, and the class RateLimiter)
import time
from collections import defaultdict

from openai import OpenAI


class RateLimiter:
    def __init__(self):
        self.times = defaultdict(list)


limiter = RateLimiter()


def allow(key):
    now = time.time()
    limiter.times[key] = [t for t in limiter.times[key] if now - t < 60]
    if len(limiter.times[key]) >= 10:
        return False
    limiter.times[key].append(now)
    return True


def chat(key, message):
    if not allow(key):
        return "429"
    completion = OpenAI().chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": message}]
    )
    return completion.choices[0].message.content


if __name__ == "__main__":
    print(chat("me", input("> ")))
