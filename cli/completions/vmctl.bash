# SPDX-License-Identifier: LGPL-2.1-or-later
# bash completion for vmctl. The words come from vmctl itself, the machines' names from umbrad.
_vmctl()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}

	COMPREPLY=()
	case $prev in
	--kernel | --initrd | --module | --config | --stats)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		compopt -o filenames
		return
		;;
	esac
	mapfile -t COMPREPLY < <(compgen -W \
		"$(vmctl __complete -- "${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null)" -- "$cur")
}
complete -F _vmctl vmctl
