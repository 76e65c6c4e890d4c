# SPDX-License-Identifier: LGPL-2.1-or-later
# bash completion for vmctl. The words come from vmctl itself, the machines' names from umbrad.
_vmctl()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}

	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		mapfile -t COMPREPLY < <(compgen -W "$(vmctl __complete 2>/dev/null)" -- "$cur")
		return
	fi
	case $prev in
	--kernel | --initrd | --module | --config | --stats)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		compopt -o filenames
		return
		;;
	--engine) mapfile -t COMPREPLY < <(compgen -W "auto soft kvm" -- "$cur"); return ;;
	--mmu) mapfile -t COMPREPLY < <(compgen -W "auto shadow tdp" -- "$cur"); return ;;
	--clock) mapfile -t COMPREPLY < <(compgen -W "host instructions" -- "$cur"); return ;;
	--boot)
		mapfile -t COMPREPLY < <(compgen -W "auto payload bzimage pvh multiboot" -- "$cur")
		return
		;;
	--on-reset) mapfile -t COMPREPLY < <(compgen -W "end restart" -- "$cur"); return ;;
	--log) mapfile -t COMPREPLY < <(compgen -W "console vm" -- "$cur"); return ;;
	--memory | --cpus | --cpu | --cmdline | --name | --timeout) return ;;
	help) mapfile -t COMPREPLY < <(compgen -W "$(vmctl __complete 2>/dev/null)" -- "$cur"); return ;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$(vmctl __complete "${COMP_WORDS[1]}" 2>/dev/null)" -- "$cur")
}
complete -F _vmctl vmctl
