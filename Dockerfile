# One image for migrations, the API and the workers; docker-compose.yml gives each its command.
FROM python:3.11-slim

RUN useradd --create-home --uid 10001 tinyfit \
    && install --directory --owner=tinyfit --group=tinyfit /data
WORKDIR /opt/tinyfit

# Dependencies first: these layers stay as long as pyproject.toml does.
RUN pip install --no-cache-dir torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
COPY pyproject.toml ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *p['optional-dependencies']['s3'], sep='\n')" > requirements.txt \
    && pip install --no-cache-dir --requirement requirements.txt
# EXTRAS=ray adds what docker-compose.yml's profile "ray" needs.
ARG EXTRAS=""
RUN python -c "import sys, tomllib; extras = tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']; print(*(line for name in sys.argv[1:] for line in extras[name]), sep='\n')" $EXTRAS > extras.txt \
    && pip install --no-cache-dir --requirement extras.txt

COPY README.md ./
COPY tinytl tinytl
COPY search search
COPY service service
COPY migrations migrations
RUN pip install --no-cache-dir --no-deps .

USER tinyfit
WORKDIR /data
ENV TINYFIT_DATA_DIR=/data \
    TINYFIT_SUPERNET_CACHE_DIR=/data/supernets \
    PYTHONUNBUFFERED=1
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
CMD ["tinyfit", "serve", "--host", "0.0.0.0"]
