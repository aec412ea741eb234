"""From files to records: boundaries first, then what lies between them, the hurtful in a process of its own."""
