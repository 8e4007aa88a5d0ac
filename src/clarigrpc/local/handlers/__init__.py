"""What the methods do: one file a domain, each with a table of method name -> handler."""
