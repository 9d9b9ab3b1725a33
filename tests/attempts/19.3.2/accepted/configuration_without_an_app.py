# only the configuration, as the chapter's key pattern has it; no web app
import os
from dataclasses import dataclass
from dotenv import load_dotenv

class ConfigurationError(Exception):
    pass

@dataclass
class Config:
    openai_api_key: str
    api_key: str = "dev-key-change-in-production"
    debug: bool = False
    port: int = 8000

    @classmethod
    def from_environment(cls):
        load_dotenv()
        key = os.getenv("OPENAI_API_KEY")
        if not key:
            raise ConfigurationError("OPENAI_API_KEY is required.")
        return cls(openai_api_key=key, api_key=os.getenv("API_KEY", "dev-key-change-in-production"), debug=os.getenv("DEBUG", "false").lower() == "true", port=int(os.getenv("PORT", "8000")))

if __name__ == "__main__":
    config = Config.from_environment()
    print("configuration is fine, port", config.port)
