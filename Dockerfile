# A folder of scans in, a folder of maps out, or a page on http://localhost:8000/; on CPUs (docs/serve.md, "Docker").
#   docker build -t medae .
#   docker run --rm --user $(id -u) -v $PWD/runs/dae:/model:ro -v $PWD/scans:/in:ro -v $PWD/maps:/out medae
#   docker run --rm -p 127.0.0.1:8000:8000 -v $PWD/runs/dae:/model:ro medae --mode=serve --host=0.0.0.0 --open_to_network
FROM python:3.12-slim
COPY . /src
RUN pip install --no-cache-dir "/src[serve]" && rm -rf /src
# Any user: compiled programs go where everybody may write.
ENV HOME=/tmp JAX_PLATFORMS=cpu
USER 65534
WORKDIR /tmp
EXPOSE 8000
ENTRYPOINT ["medae", "--workdir=/model"]
CMD ["--mode=predict", "--input=/in", "--output=/out"]
