# Every target does its own set-up and is safe to run again. Root, or sudo, is needed for packages and namespaces.

PYTHON ?= /usr/bin/python3
VENV := .venv
TOOLS := .tools
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
BIN := $(VENV)/bin

# What the product and its lab need from Debian …
PACKAGES := nftables iptables iproute2 kmod ethtool procps openssl build-essential libnetfilter-queue-dev libseccomp2 \
	python3-dev python3-venv
# … and what only the tests use. Unpacked into $(TOOLS), never installed: no mail or DNS server starts on your machine.
TEST_PACKAGES := postfix nsd hping3 exim4-daemon-light opensmtpd swaks libio-socket-inet6-perl libnet-ssleay-perl haproxy \
	vagrant vagrant-libvirt qemu-system-x86 openssh-client systemd man-db zsh fish shellcheck e2fsprogs lintian ufw firewalld dbus
# A kernel as Debian ships it, and what runs it in a virtual machine. Unpacked like the others.
GUEST_PACKAGES := $(if $(filter amd64,$(shell dpkg --print-architecture)),linux-image-amd64 busybox-static cpio)
# Of these only the files, without what they depend on. (Asked late: Python itself may have to be fetched first.)
TEST_DATA = libpython$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')-testsuite spamassassin systemd-container

# Most tests wait for time-outs of others, and one waits for a virtual machine that runs more of them; those that
# measure or flood run after them, alone.
JOBS := 4
# Containers of Python set it; here every process of every gateway would compile its own modules again.
unexport PYTHONDONTWRITEBYTECODE
PYTEST := $(BIN)/python -m pytest -p no:cacheprovider --durations=10
UNSHOWN := $(TOOLS)/unshown
# Versions and hashes, of whatever builds, runs and tests: what an index has changed meanwhile is refused.
LOCKS := requirements/build.txt requirements/run.txt tests/requirements.txt
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCKING := $(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header --no-emit-options \
	--no-emit-index-url --no-emit-find-links
DEBOOTSTRAP := command -v debootstrap >/dev/null || $(SUDO) apt-get install -y -qq --no-install-recommends debootstrap >/dev/null
# A run that hangs outside any test ends, and says so.
BOUNDED := timeout --kill-after=10 --verbose 7200

# What the lab of virtual machines needs; and what more, where it is run by Vagrant without a libvirt of this machine's.
LAB_PACKAGES := qemu-system-x86 qemu-utils debootstrap e2fsprogs fdisk grub-pc-bin grub-common cpio lz4 xz-utils rsync openssh-client
LAB_VAGRANT_PACKAGES := vagrant vagrant-libvirt libvirt-daemon-system libvirt-clients dnsmasq-base iptables
LAB_SUITE ?= bookworm
# Your own libvirt or VirtualBox needs no root, nor should its machines be root's.
LAB := $(if $(filter vagrant,$(LAB_RUNNER)),$(if $(filter tcg,$(LAB_ACCEL)),$(SUDO)),$(SUDO)) $(BIN)/python -m vagrant.lab
LAB_OPTIONS := --suite $(LAB_SUITE) $(if $(LAB_RUNNER),--runner $(LAB_RUNNER)) $(if $(LAB_ACCEL),--accelerate $(LAB_ACCEL))

.PHONY: help demo check test stock suites bench bench-mta soak fuzz lint lock clean tools wheel deb deb-test lab lab-test lab-down lab-tools
help:
	@echo "make demo   set up, then show the gateway at work in network namespaces"
	@echo "make check  set up, then lint, the pure tests but the MTA's, and one message through a gateway: a minute, for every commit"
	@echo "make test   set up, then run every test"
	@echo "make stock  set up, then run TESTS=\"tests/kernel/…\" in a virtual machine with a Debian kernel"
	@echo "make suites  set up, then run only other people's suites through the gateway"
	@echo "make bench  set up, then race the gateway against HAProxy and a bare bridge, its MTA against Postfix"
	@echo "make bench-mta  only the MTA's part of it: against Postfix, on the same disk"
	@echo "make soak   set up, then MINUTES=60 of mail and, every ten seconds, a fault chosen by SEED=1; the exit status tells"
	@echo "make fuzz   set up, then fuzz the session and the parsers until Ctrl-C"
	@echo "make deb    build the Debian package for this machine's Debian, dist/tollbridge_*.deb; DEBIAN=trixie: for another"
	@echo "make wheel  build the wheel, and beside it the wheels that it needs, dist/"
	@echo "make lab    bring four virtual machines up, run their tests, keep them (vagrant/README.md)"
	@echo "make lab-test  the same, then take them away; the exit status tells"
	@echo "make lab-down  take them away"
	@echo "make deb-test  build the package, install, run, upgrade and purge it in Debian 12 and 13 under systemd"
	@echo "make lint   format, style and types only"
	@echo "make lock   choose the newest versions of everything again, with their hashes"
	@echo "make clean  remove what the other targets made here"

demo: $(VENV)/.ready
	$(SUDO) $(BIN)/tollbridge demo

# What can be wrong and seen at once; what waits, mounts, kills or builds network namespaces is `make test`'s.
CHECKED := tests/test_architecture.py tests/test_docs.py tests/app tests/bridge tests/hwprofiles tests/smtp tests/kernel/test_verdicts.py::test_intercept
check: $(VENV)/.ready $(TOOLS)/.ready lint
	$(SUDO) $(BOUNDED) $(BIN)/python -m pytest -p no:cacheprovider -q -n $(shell nproc) --dist loadfile -m "not alone" $(CHECKED)

test: $(VENV)/.ready $(TOOLS)/.ready lint
	@$(SUDO) rm -f $(UNSHOWN)
	status=0; \
	$(SUDO) $(BOUNDED) $(PYTEST) --unshown=$(UNSHOWN) -n $(JOBS) --dist loadfile --no-loadscope-reorder --max-worker-restart=1 \
		-m "not alone and not installed and not vm" || status=$$?; \
	$(SUDO) $(BOUNDED) $(PYTEST) --unshown=$(UNSHOWN) -m alone || status=$$?; \
	exit $$status

# e.g. make stock TESTS=tests/kernel/test_vlan.py; an emulated machine takes its time.
stock: $(VENV)/.ready $(TOOLS)/.ready
	$(SUDO) $(BIN)/python -m tests.stock $(TESTS)

suites: $(VENV)/.ready $(TOOLS)/.ready
	$(SUDO) $(PYTEST) tests/kernel/test_suites.py

# e.g. make soak MINUTES=60 SEED=2 SOAK="--json soak.json --keep soak-logs"; two processors should have little else to do.
MINUTES ?= 60
SEED ?= 1
soak: $(VENV)/.ready $(TOOLS)/.ready
	$(SUDO) $(BIN)/python -m tests.soak --minutes $(MINUTES) --seed $(SEED) $(SOAK)

fuzz: $(VENV)/.ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: -r tests/fuzz/requirements.txt \
		|| echo "no atheris here: Hypothesis searches without it"
	$(BIN)/python -m tests.fuzz $(TARGETS)

# e.g. make bench BENCH="--rounds 9 --json bench.json"; the machine must have nothing else to do.
bench: $(VENV)/.ready $(TOOLS)/.ready
	status=0; \
	$(SUDO) $(BIN)/python -m tests.bench $(BENCH) || status=$$?; \
	$(SUDO) $(BIN)/python -m tests.bench.mta $(BENCH_MTA) || status=$$?; \
	exit $$status

# The second half alone, e.g. make bench-mta BENCH_MTA="--rounds 7 --disk /srv --json bench-mta.json"
bench-mta: $(VENV)/.ready $(TOOLS)/.ready
	$(SUDO) $(BIN)/python -m tests.bench.mta $(BENCH_MTA)

# For this machine's architecture and python3; for another Debian, inside it (root, 800 MB in .tools/): make deb DEBIAN=trixie
deb: $(VENV)/.ready
ifdef DEBIAN
	@$(DEBOOTSTRAP)
	$(SUDO) env PYTHONPATH=$(CURDIR) $(BIN)/python -m smtp_intercept.app.packaging.elsewhere $(DEBIAN)
else
	PYTHONPATH=$(CURDIR) $(BIN)/python -m smtp_intercept.app.packaging.deb
endif

wheel: $(VENV)/.ready
	PYTHONPATH=$(CURDIR) $(BIN)/python -m smtp_intercept.app.packaging.deb --wheel

# Minutes, and 1.5 GB in .tools/: Debian 12 and 13, and what builds the package for the one that this machine is not.
deb-test: $(VENV)/.ready $(TOOLS)/.ready
	@$(DEBOOTSTRAP)
	$(SUDO) $(BOUNDED) $(PYTEST) -m installed tests/packaging

# LAB_SUITE=trixie: Debian 13. LAB_RUNNER=vagrant or qemu. LAB_TESTS="-k reboot": not all of them.
lab: $(VENV)/.ready $(TOOLS)/.ready lab-tools
	$(LAB) run $(LAB_OPTIONS) -- $(LAB_TESTS)

lab-test: $(VENV)/.ready $(TOOLS)/.ready lab-tools
	$(LAB) test $(LAB_OPTIONS) -- $(LAB_TESTS)

lab-down: $(VENV)/.ready
	$(LAB) down

lab-tools:
	@for p in $(LAB_PACKAGES) $(if $(filter vagrant,$(LAB_RUNNER)),$(LAB_VAGRANT_PACKAGES)); do \
		dpkg-query -W -f='$${Status}\n' $$p 2>/dev/null | grep -q 'install ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing:$$missing"; $(SUDO) apt-get update -qq && \
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi

lint: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/.ready: pyproject.toml $(LOCKS)
	@for p in $(PACKAGES); do dpkg-query -W -f='$${Status}\n' $$p 2>/dev/null | grep -q 'install ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing:$$missing"; $(SUDO) apt-get update -qq && \
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi
	$(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes -r requirements/build.txt
	$(PIP) --require-hashes --no-build-isolation -r tests/requirements.txt
	$(PIP) --no-build-isolation --no-deps --editable .
	touch $@

tools: $(TOOLS)/.ready
$(TOOLS)/.ready: Makefile | $(VENV)/.ready
	mkdir -p $(TOOLS)/archives/partial
	$(SUDO) apt-get update -qq
	for p in $(TEST_PACKAGES) $(GUEST_PACKAGES); do $(SUDO) apt-get -qq -y --no-install-recommends --reinstall --download-only \
		-o Dir::Cache::archives=$(CURDIR)/$(TOOLS)/archives -o APT::Sandbox::User=root install $$p >/dev/null || exit 1; \
	done  # one by one: mail servers exclude one another
	cd $(TOOLS)/archives && $(SUDO) apt-get -qq -o APT::Sandbox::User=root download $(TEST_DATA) >/dev/null
	for deb in $(TOOLS)/archives/*.deb; do dpkg-deb -x $$deb $(TOOLS); done
	cd $(TOOLS) && for place in bin sbin lib lib64; do if [ -d $$place ] && [ ! -L $$place ]; then \
		cp -al --force $$place/. usr/$$place/ && rm -r $$place && ln -s usr/$$place $$place || exit 1; fi; \
	done  # as on every Debian, where all of them are below /usr
	touch $@

lock: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet pip-tools
	$(LOCKING) -o requirements/build.txt requirements/build.in
	$(LOCKING) -o requirements/run.txt pyproject.toml
	$(LOCKING) -c requirements/run.txt -c requirements/build.txt -o tests/requirements.txt pyproject.toml tests/requirements.in

clean:
	$(SUDO) rm -rf $(VENV) $(TOOLS) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .fuzz
