"""Pictures that are embedded once and searched for ever: one folder, no server."""
