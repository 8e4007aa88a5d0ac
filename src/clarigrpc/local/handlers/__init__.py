"""What the methods of V2 do: a module a domain, each with tables of method -> handler."""
