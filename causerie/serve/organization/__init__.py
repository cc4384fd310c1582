"""v1/organization: projects, their members and keys, users, quotas, prices, invoices, and the audit log."""
