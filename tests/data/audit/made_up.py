"""Secrets in the formats of common providers, made up from a seed, and strings that only look like secrets."""

from __future__ import annotations

import random
import string
import uuid

ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"
UPPER = string.ascii_uppercase + string.digits
WEB = ALNUM + "-_"

# name under which it is assigned, format: (alphabet, length) pairs between fixed pieces
FORMATS: dict[str, tuple[object, ...]] = {
    "openai_project": ("sk-" "proj-", (WEB, 120)),
    "openai_short": ("sk-" "proj-", (ALNUM, 48)),
    "openai_service": ("sk-" "svcacct-", (WEB, 100)),
    "openai_legacy": ("sk-", (ALNUM, 20), "T3Blbk" "FJ", (ALNUM, 20)),
    "openai_old_style": ("sk-", (ALNUM, 48)),
    "anthropic": ("sk-ant-" "api03-", (WEB, 93), "AA"),
    "openrouter": ("sk-or-" "v1-", (HEX, 64)),
    "aws_key_id": ("AKI" "A", (UPPER, 16)),
    "aws_secret_access_key": ((ALNUM + "/+", 40),),
    "github_classic": ("gh" "p_", (ALNUM, 36)),
    "github_fine": ("github_" "pat_", (ALNUM, 22), "_", (ALNUM, 59)),
    "github_oauth": ("gh" "o_", (ALNUM, 36)),
    "gitlab": ("gl" "pat-", (WEB, 20)),
    "google": ("AI" "za", (WEB, 35)),
    "google_oauth": ("GOC" "SPX-", (WEB, 28)),
    "slack_bot": ("xo" "xb-", (string.digits, 12), "-", (string.digits, 12), "-", (ALNUM, 24)),
    "slack_webhook": ("https://hooks.slack.com/" "services/T", (UPPER, 8), "/B", (UPPER, 8), "/", (ALNUM, 24)),
    "stripe_live": ("sk_" "live_", (ALNUM, 24)),
    "stripe_test": ("sk_" "test_", (ALNUM, 24)),
    "stripe_restricted": ("rk_" "live_", (ALNUM, 24)),
    "stripe_webhook": ("wh" "sec_", (ALNUM, 32)),
    "sendgrid": ("S" "G.", (WEB, 22), ".", (WEB, 43)),
    "twilio": ("S" "K", (HEX, 32)),
    "twilio_auth_token": ((HEX, 32),),
    "mailgun": ("ke" "y-", (HEX, 32)),
    "telegram": ((string.digits[1:], 10), ":A" "A", (WEB, 33)),
    "discord_bot_token": ("M", (ALNUM, 25), ".", (WEB, 6), ".", (WEB, 38)),
    "huggingface": ("h" "f_", (string.ascii_letters, 34)),
    "groq": ("gs" "k_", (ALNUM, 52)),
    "replicate": ("r" "8_", (ALNUM, 37)),
    "perplexity": ("pp" "lx-", (ALNUM, 48)),
    "xai": ("xa" "i-", (ALNUM, 80)),
    "tavily": ("tv" "ly-", (ALNUM, 32)),
    "tavily_dev": ("tv" "ly-dev-", (ALNUM, 32)),
    "flutterwave_test": ("FLW" "SECK_TEST-", (HEX, 12)),
    "easypost": ("EZ" "AK", (ALNUM, 54)),
    "pulumi": ("pu" "l-", (HEX, 40)),
    "gitlab_runner": ("GR13" "48941", (WEB, 20)),
    "alibaba_access_key": ("LT" "AI", (ALNUM, 20)),
    "slack_rotated": ("xo" "xe.xo" "xp-1-", (UPPER, 163)),
    "mapbox": ("s" "k.ey" "J1Ijoi", (ALNUM, 50), ".", (ALNUM, 22)),
    "dynatrace": ("dt0" "c01.", (UPPER, 24), ".", (UPPER, 64)),
    "of_a_new_provider": ("shop" "ly_live_", (ALNUM, 32)),
    "langsmith": ("lsv" "2_pt_", (HEX, 32), "_", (HEX, 10)),
    "pinecone": ("pcs" "k_", (ALNUM, 5), "_", (ALNUM, 64)),
    "cohere_api_key": ((ALNUM, 40),),
    "mistral_api_key": ((ALNUM, 32),),
    "deepseek": ("sk-", (HEX, 32)),
    "npm": ("np" "m_", (ALNUM, 36)),
    "pypi": ("pypi-" "AgEIcHlwaS5vcmc", (WEB, 120)),
    "digitalocean": ("dop_" "v1_", (HEX, 64)),
    "databricks": ("dap" "i", (HEX, 32)),
    "azure_openai_key": ((HEX, 32),),
    "azure_storage": ("DefaultEndpointsProtocol=https;AccountName=shop;Account" "Key=", (ALNUM + "+/", 86), "=="),
    "shopify": ("shp" "at_", (HEX, 32)),
    "linear": ("lin_" "api_", (ALNUM, 40)),
    "notion": ("nt" "n_", (ALNUM, 46)),
    "jwt": ("ey" "J", (WEB, 33), ".ey" "J", (WEB, 60), ".", (WEB, 43)),
    "postgres_url": ("postgresql://shop:", (ALNUM, 16), "@db.internal:5432/shop"),
    "private_key": ("-----BEGIN " "PRIVATE KEY-----\n", (ALNUM + "+/", 64), "\n", (ALNUM + "+/", 64), "\n-----END"),
    "jwt_secret": ((ALNUM, 32),),
    "secret_key": ((WEB, 50),),
    "database_password": ((ALNUM + "!#", 14),),
    "webhook_secret": ((HEX, 64),),
    "api_key": ((ALNUM, 32),),
    "access_token": ((WEB, 40),),
}  # fmt: skip


def secret(kind: str, rng: random.Random) -> str:
    """Make up one secret of this kind."""
    pieces = FORMATS[kind]
    return "".join(p if isinstance(p, str) else "".join(rng.choices(p[0], k=p[1])) for p in pieces)  # type: ignore[index]


def harmless(rng: random.Random) -> list[tuple[str, str]]:
    """Return names and values that are no secrets: identifiers, digests, placeholders, references, words."""

    def some(alphabet: str, length: int) -> str:
        return "".join(rng.choices(alphabet, k=length))

    return [
        ("tool_call", "call_" + some(ALNUM, 24)),
        ("completion", "chatcmpl-" + some(ALNUM, 29)),
        ("test_case", "test_" + "_".join(["a_long_name", "in_words", "of_a_case_2"])),
        ("request_id", str(uuid.UUID(int=rng.getrandbits(128)))),
        ("conversation_id", some(HEX, 32)),
        ("commit", some(HEX, 40)),
        ("checksum", some(HEX, 64)),
        ("sha256_digest", some(HEX, 64)),
        ("etag", some(ALNUM, 27)),
        ("image", "data:image/png;base64," + some(ALNUM + "+/", 200)),
        ("nonce_pattern", r"[A-Za-z0-9_-]{20,}"),
        ("openai_api_key", "sk-your-openai-api-key-here"),
        ("openai_api_key", "sk-" + "x" * 48),
        ("OPENAI_API_KEY", "your-api-key"),
        ("api_key", "<YOUR_API_KEY>"),
        ("api_key", "${OPENAI_API_KEY}"),
        ("api_key", "{{ api_key }}"),
        ("api_key", "dev-key-change-in-production"),
        ("api_key", "test-key"),
        ("api_key", "sk-test-key-for-unit-tests"),
        ("api_key", "not-needed"),
        ("api_key_header", "X-API-Key"),
        ("api_key_env", "OPENAI_API_KEY"),
        ("secret_name", "projects/1/secrets/openai/versions/3"),
        ("secrets_file", "/run/secrets/openai_api_key"),
        ("secret_key", "change-me-before-you-deploy"),
        ("aws_access_key_id", "AKIA" + "IOSFODNN7" + "EXAMPLE"),
        ("password", "password"),
        ("password", "********"),
        ("password_hint", "at least 12 characters"),
        ("password_hash", "$2b$12$" + some(ALNUM + "./", 53)),
        ("token_url", "https://login.shop.example/oauth2/token"),
        ("token_type", "bearer"),
        ("max_tokens", "4096"),
        ("next_page_token", some(ALNUM, 24)),
        ("public_key", "ssh-ed25519 AAAA" + some(ALNUM, 64)),
        ("cache_key", "user:profile:" + some(HEX, 16)),
        ("primary_key", "customer_identifier"),
        ("model", "claude-3-5-sonnet-20241022"),
        ("model", "text-embedding-3-small"),
        ("user_agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
        ("database_url", "postgresql://${DB_USER}:${DB_PASSWORD}@db:5432/shop"),
        ("database_url", "postgresql://localhost/shop"),
        ("redis_url", "redis://redis:6379/0"),
        ("url", "https://api.shop.example/v1/items?page=3&sort=name"),
        ("css", "sk-spinner-three-bounce-delayed"),
        ("lorem", "Lorem ipsum dolor sit amet, consectetur adipiscing elit"),
        ("timestamp", "2026-01-17T10:23:54.123456+00:00"),
        ("version", "v2.14.3-rc.1+build.20260117"),
        ("key", "customer.address.street"),
        ("keyboard", "qwertyuiopasdfghjkl"),
        ("author", "a3f8e2b19c7d4"),
        ("tokenizer", "cl100k_base"),
    ]
