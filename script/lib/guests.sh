# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# Guests out of Debian's archive: kernels as they are shipped, and an initrd around busybox.
#
# To be sourced. Everything lands in $UMBRA_GUESTS (default: build/guests) and is made once; a second call
# only prints the path. No root is needed and no package is installed: apt works in folders of its own.
#
#   guests_kernel NAME    the path of a kernel (a bzImage): cloud, generic, pae, 686
#   guests_initrd NAME    the path of the initrd for that kernel
#   guests_vmlinux NAME   the path of the ELF that the bzImage holds (for cross-checks)
#   guests_all            fetch and build all of them
#
# The initrd's /init prints "umbra: init reached", uname -a and "umbra: cpus N". Then it runs the command
# that umbra.run= names on the kernel's command line (umbra.run="several words" works as well), prints
# "umbra: run status N" when there was one, and powers off.

UMBRA_GUESTS=${UMBRA_GUESTS:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/build/guests}

# NAME -> the metapackage and its architecture.
_guests_package() {
	case $1 in
	cloud) echo linux-image-cloud-amd64:amd64 ;;
	generic) echo linux-image-amd64:amd64 ;;
	pae) echo linux-image-686-pae:i386 ;;
	686) echo linux-image-686:i386 ;;
	*)
		echo "guests: no kernel is called '$1' (cloud, generic, pae, 686)" >&2
		return 1
		;;
	esac
}

_guests_arch() {
	local package
	package=$(_guests_package "$1") && echo "${package#*:}"
}

_guests_apt() {
	local tool=$1
	shift
	APT_CONFIG=$UMBRA_GUESTS/apt/apt.conf "$tool" "$@"
}

# Package lists for both architectures, apart from the system's.
_guests_apt_setup() {
	local apt=$UMBRA_GUESTS/apt
	[ -e "$apt/ready" ] && return 0
	mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
	: >"$apt/status"
	cat >"$apt/apt.conf" <<-EOF
		Dir::State::lists "$apt/lists";
		Dir::State::status "$apt/status";
		Dir::Cache "$apt/cache";
		APT::Architecture "amd64";
		APT::Architectures { "amd64"; "i386"; };
		APT::Sandbox::User "";
		Acquire::Languages "none";
		Acquire::Retries "3";
	EOF
	# A mirror that is being updated may lack a list for a while: the others will do, when the kernels are
	# in them.
	local try
	for try in 1 2 3; do
		_guests_apt apt-get -qq update >"$apt/update.log" 2>&1
		if _guests_apt apt-cache show linux-image-cloud-amd64:amd64 linux-image-686:i386 \
			>/dev/null 2>&1; then
			touch "$apt/ready"
			return 0
		fi
		sleep $((try * 2))
	done
	cat "$apt/update.log" >&2
	echo "guests: Debian's archive cannot be read (apt-get update failed)" >&2
	return 1
}

# Download a package and print the path of its .deb.
_guests_download() {
	local package=$1 dir
	dir=$(mktemp -d "$UMBRA_GUESTS/apt/get.XXXXXX") || return 1
	(cd "$dir" && _guests_apt apt-get -qq download "$package" >&2) || {
		# The lists may be older than the archive.
		rm -f "$UMBRA_GUESTS/apt/ready"
		_guests_apt_setup && (cd "$dir" && _guests_apt apt-get -qq download "$package" >&2)
	} || {
		rm -rf "$dir"
		echo "guests: $package cannot be downloaded" >&2
		return 1
	}
	echo "$dir"/*.deb
}

# The package that a metapackage stands for: its first dependency, with the architecture.
_guests_resolve() {
	local meta=$1 real
	real=$(_guests_apt apt-cache --no-recommends --no-suggests depends "$meta" |
		awk '$1 == "Depends:" { print $2; exit }')
	[ -n "$real" ] || {
		echo "guests: $meta depends on nothing" >&2
		return 1
	}
	echo "${real%:*}:${meta#*:}"
}

guests_kernel() {
	local name=$1 dir=$UMBRA_GUESTS/$1 meta real deb
	meta=$(_guests_package "$name") || return 1
	if [ ! -e "$dir/vmlinuz" ]; then
		_guests_apt_setup && real=$(_guests_resolve "$meta") && deb=$(_guests_download "$real") ||
			return 1
		mkdir -p "$dir"
		dpkg-deb --fsys-tarfile "$deb" |
			tar -x -C "$dir" --wildcards --transform='s,.*/vmlinuz-.*,vmlinuz.new,' './boot/vmlinuz-*'
		[ -s "$dir/vmlinuz.new" ] || {
			echo "guests: $real holds no kernel" >&2
			return 1
		}
		# shellcheck disable=SC2016 # dpkg-deb expands them
		dpkg-deb -W --showformat='${Package} ${Version} ${Architecture}\n' "$deb" >"$dir/package"
		rm -rf "$(dirname "$deb")"
		mv "$dir/vmlinuz.new" "$dir/vmlinuz"
	fi
	echo "$dir/vmlinuz"
}

_guests_init() {
	cat <<'EOF'
#!/bin/busybox sh
# The shell runs busybox's applets by itself once /proc is there.
/bin/busybox mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
echo "umbra: init reached"
uname -a
echo "umbra: cpus $(grep -c '^processor' /proc/cpuinfo)"
read -r line </proc/cmdline
case $line in
*umbra.run=\"*)
	run=${line#*umbra.run=\"}
	run=${run%%\"*}
	;;
*umbra.run=*)
	run=${line#*umbra.run=}
	run=${run%% *}
	;;
*)
	run=
	;;
esac
if [ -n "$run" ]; then
	sh -c "$run"
	echo "umbra: run status $?"
fi
poweroff -f
EOF
}

# The same tree gives the same bytes: fixed times, owners, order and inode numbers.
_guests_pack() {
	local tree=$1
	find "$tree" -exec touch -h -d @0 {} +
	(cd "$tree" && find . | LC_ALL=C sort |
		cpio --quiet -o -H newc --reproducible -R 0:0) | gzip -9n
}

guests_initrd() {
	local name=$1 arch out tree deb
	arch=$(_guests_arch "$name") || return 1
	out=$UMBRA_GUESTS/initrd-$arch.cpio.gz
	# Newer than this file, whose /init it holds.
	if [ ! "$out" -nt "${BASH_SOURCE[0]}" ]; then
		if [ ! -e "$UMBRA_GUESTS/busybox-$arch" ]; then
			_guests_apt_setup && deb=$(_guests_download "busybox-static:$arch") || return 1
			dpkg-deb --fsys-tarfile "$deb" |
				tar -x -O ./bin/busybox >"$UMBRA_GUESTS/busybox-$arch.new" || return 1
			rm -rf "$(dirname "$deb")"
			mv "$UMBRA_GUESTS/busybox-$arch.new" "$UMBRA_GUESTS/busybox-$arch"
		fi
		tree=$(mktemp -d "$UMBRA_GUESTS/tree.XXXXXX") || return 1
		mkdir -m 755 "$tree"/{bin,dev,proc,sys,tmp}
		chmod 755 "$tree"
		install -m 755 "$UMBRA_GUESTS/busybox-$arch" "$tree/bin/busybox"
		_guests_init >"$tree/init"
		chmod 755 "$tree/init"
		_guests_pack "$tree" >"$out.new" || return 1
		rm -rf "$tree"
		mv "$out.new" "$out"
	fi
	echo "$out"
}

# By xz or lz4, whichever Debian chose; the last four bytes of the payload are its size.
guests_vmlinux() {
	local name=$1 out=$UMBRA_GUESTS/$1/vmlinux kernel
	kernel=$(guests_kernel "$name") || return 1
	if [ ! "$out" -nt "$kernel" ]; then
		python3 - "$kernel" "$out.new" <<-'EOF' || return 1
			import subprocess, sys
			data = open(sys.argv[1], "rb").read()
			word = lambda at: int.from_bytes(data[at:at + 4], "little")
			start = (data[0x1f1] + 1) * 512 + word(0x248)
			packed = data[start:start + word(0x24c)]
			size = int.from_bytes(packed[-4:], "little")
			tools = {b"\xfd7zX": ["xz"], b"\x02\x21\x4c\x18": ["lz4"], b"\x28\xb5\x2f\xfd": ["zstd"]}
			tool = tools.get(packed[:4], ["gzip"])
			if tool != ["gzip"]:
			    packed = packed[:-4]
			elf = subprocess.run(tool + ["-dc"], input=packed, capture_output=True).stdout
			if len(elf) != size:
			    sys.exit(f"guests: {tool[0]} gave {len(elf)} of {size} bytes")
			open(sys.argv[2], "wb").write(elf)
		EOF
		mv "$out.new" "$out"
	fi
	echo "$out"
}

guests_all() {
	local name
	for name in cloud generic pae 686; do
		guests_kernel "$name" && guests_initrd "$name" || return 1
	done
}
