# must fail: required
# a default in place of a check: it fails at the first call of the model
import os
from dataclasses import dataclass
from dotenv import load_dotenv

@dataclass
class Config:
    openai_api_key: str
    api_key: str = "dev-key-change-in-production"
    debug: bool = False
    port: int = 8000

    @classmethod
    def from_environment(cls):
        load_dotenv()
        key = os.getenv("OPENAI_API_KEY", "none")
        return cls(openai_api_key=key, api_key=os.getenv("API_KEY", "dev-key-change-in-production"), debug=os.getenv("DEBUG", "false").lower() == "true", port=int(os.getenv("PORT", "8000")))

if __name__ == "__main__":
    config = Config.from_environment()
    print("configuration is fine, port", config.port)
