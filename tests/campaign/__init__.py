"""Bad inputs and kills over all modes: long, run by hand (`-m campaign`); figures in docs/reliability.md."""
