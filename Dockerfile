# One image for the API and the workers; docker-compose.yml gives each its command.
FROM python:3.12-slim

WORKDIR /opt/tinyfit
RUN pip install --no-cache-dir torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
COPY pyproject.toml README.md ./
COPY tinytl tinytl
COPY search search
COPY service service
COPY migrations migrations
RUN pip install --no-cache-dir . \
    && useradd --create-home tinyfit \
    && install --directory --owner=tinyfit /data
USER tinyfit
ENV TINYFIT_DATA_DIR=/data \
    TINYFIT_SUPERNET_CACHE_DIR=/data/supernets
VOLUME /data
EXPOSE 8000
CMD ["tinyfit", "serve", "--host", "0.0.0.0"]
