# What there is to do here; `make` alone lists it. What takes more than a line is in scripts/.

SHELL := /bin/bash
MDBOOK = $(shell command -v mdbook || echo target/tools/bin/mdbook)

.PHONY: help demo test bench lint book

help:
	@echo 'make demo    build labctl, run the lab labs/quickstart.yaml, show its probes and status, end it'
	@echo 'make test    all the tests'
	@echo 'make bench   the benchmark; ARGS=--quick for a short one'
	@echo 'make lint    formatting, clippy and documentation, warnings denied'
	@echo 'make book    the book, as HTML in book/book'

demo:
	@scripts/need iptables ip ping
	cargo build --locked --bin labctl
	@scripts/demo $${CARGO_TARGET_DIR:-target}/debug/labctl

test:
	@scripts/need iptables ip bridge ping curl tcpdump openssl python3 ps unshare useradd su tc nft portmap nginx haproxy wrk chromium chromedriver dot tshark conntrack
	@scripts/test

bench:
	@scripts/need iptables ip
	cargo bench --locked --bench '*' -- $(ARGS)

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps

# mdbook stays in the project's own target directory, where the system has none.
book:
	@command -v $(MDBOOK) >/dev/null || \
		cargo install mdbook --locked --root target/tools --target-dir target/tools/build
	$(MDBOOK) build book
