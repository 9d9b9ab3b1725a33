FROM python:3.12-slim AS build
USER app
FROM registry.example:5000/base
# expect above: image-latest
# expect 2 above: container-root
COPY --from=build /app /app
