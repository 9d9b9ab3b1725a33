import os
import sys

from openai import OpenAI


def main():
    client = OpenAI(api_key=os.environ["OPENAI_API_KEY"])
    answer = client.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": " ".join(sys.argv[1:]) or "Hello"}],
    )
    print(answer.choices[0].message.content)


if __name__ == "__main__":
    main()
